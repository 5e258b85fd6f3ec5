"""The thread that watches the plugin folder: events of the system make it look at once, a clock anyway."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from broker.packages.watching import CAP_SECS, Change, Scan, Seen, decide, scan

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

log = logging.getLogger("broker.packages")

# How long events are gathered before they make the thread look.
_GATHER_MS, _STEP_MS = 200, 100


class Watcher:
    """Watches one folder until it is stopped.

    Args:
        directory: the plugin folder.
        report: called on the watcher's thread with what has settled.
        interval: seconds between two looks when the system tells of no event: on some file systems it never does.
        known: what was found when the plugins were started.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        directory: Path,
        report: Callable[[Sequence[Change]], None],
        interval: float,
        known: Scan,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._report = report
        self._interval = interval
        self._clock = clock
        self._seen = Seen(known)
        self._told: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker-watcher", daemon=True)

    def start(self) -> None:
        """Begins to watch; returns at once."""
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Ends the thread, waits for it up to `timeout` seconds."""
        self._stopping.set()
        self._thread.join(timeout)

    def look(self) -> float:
        """Looks once and reports; returns the seconds until the next look."""
        try:
            found = scan(self._directory)
        except OSError as error:
            # Not to be confused with an empty folder, or a hiccup of a network would stop every plugin.
            self._tell("", f"{self._directory} cannot be read, nothing is loaded or unloaded: {error.strerror}")
            return self._interval
        self._told.discard("")
        decision = decide(self._seen, found, self._clock())
        self._seen = decision.seen
        self._told &= {"", *decision.restless}
        for name in decision.restless:
            self._tell(
                name, f"{name} has been changing for more than {CAP_SECS:g} s: it is loaded when it does not any more"
            )
        if decision.changes:
            self._report(decision.changes)
        return self._interval if decision.again is None else min(self._interval, decision.again)

    def _run(self) -> None:
        trigger = _Trigger(self._directory, self._stopping)
        try:
            while not self._stopping.is_set():
                trigger.wait(max(0.01, self.look()))
        except Exception:
            # A defect of ours must not keep silent: nobody waits for the result of this.
            log.exception("watching %s has ended; 'broker reload-config' still reads it", self._directory)
        finally:
            trigger.close()

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("%s", text)


class _Trigger:
    """Waits for events below a folder, or only for the time when the system has none to give."""

    def __init__(self, directory: Path, stopping: threading.Event) -> None:
        self._directory = directory
        self._stopping = stopping
        self._notify: RustNotify | None = None
        self._inode = -1
        self._told = False

    def wait(self, secs: float) -> None:
        """Returns after an event or after the time, and at once when it is to stop."""
        notify = self._current()
        if notify is None:
            self._stopping.wait(secs)
        else:
            notify.watch(_GATHER_MS, min(_STEP_MS, max(1, int(secs * 1000))), max(1, int(secs * 1000)), self._stopping)

    def close(self) -> None:
        """Gives the watch back."""
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    def _current(self) -> "RustNotify | None":
        """The watch, made anew when the folder is another one than before under the same name."""
        try:
            inode = os.stat(self._directory).st_ino
        except OSError:
            inode = -1
        if inode != self._inode:
            self.close()
            self._inode = inode
            self._notify = self._open() if inode >= 0 else None
        return self._notify

    def _open(self) -> "RustNotify | None":
        try:
            # Here, because a broker that does not watch must not pay for it.
            from watchfiles._rust_notify import RustNotify

            return RustNotify([str(self._directory)], False, False, 0, True, True)
        except (ImportError, OSError, RuntimeError) as error:
            if not self._told:
                self._told = True
                log.warning("no events from %s, it is looked at from time to time: %s", self._directory, error)
            return None
