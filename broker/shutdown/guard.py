"""A thread that hears the signals, and that ends the process when the shutdown does not.

It is a thread, and its signals come through a file descriptor, because the most likely reason why a broker does not
stop is an event loop that hangs: a handler that runs on the loop, or between two instructions of the main thread,
would then hear nothing of SIGTERM (cpython#121649).
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from types import FrameType
from typing import Any

log = logging.getLogger("broker.shutdown")

EX_UNDONE = 3  # stopped in order, but something was left undone
EX_FORCED = 4  # ended by the guard or by a second signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
WORDS_SECS = 1.0  # so long the last line may take to reach a log that does not move
FRAMES = 3  # of the main thread, shown when the process is forced to end
_LOOK_AGAIN = b"\0"


class Guard:
    """Hears SIGINT, SIGTERM, SIGQUIT and SIGHUP; from the first of them that means stop it counts the time.

    Args:
        limit: seconds from that signal until the process is ended, None for no limit.
        hangup_stops: whether SIGHUP means stop, too.
        leave: ends the process with an exit status.
    """

    def __init__(
        self,
        limit: float | None,
        *,
        hangup_stops: bool = False,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self.limit = limit
        self.hangup_stops = hangup_stops
        # Both are called by the guard's thread, so they must not need the loop.
        self.unfinished: Callable[[], str] = lambda: "the start"
        self.kill: Callable[[], None] = lambda: None
        self._leave = leave
        self._armed: float | None = None
        self._tell: Callable[[str, bool], None] | None = None
        self._missed: list[tuple[str, bool]] = []
        self._mutex = threading.Lock()
        self._ears, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._closed = False
        self._before: dict[signal.Signals, Any] = {}
        self._thread = threading.Thread(target=self._watch, name="broker-guard", daemon=True)

    def __enter__(self) -> Guard:
        """Hear signals from now on; for the main thread."""
        for number in (*STOPPING, signal.SIGHUP):
            self._before[number] = signal.signal(number, _only_heard)
            signal.siginterrupt(number, False)
        signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back and watch no more."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._closed = True
        self._look_again()
        self._thread.join()
        self._ears.close()
        self._mouth.close()

    def attach(
        self, loop: asyncio.AbstractEventLoop, on_stop: Callable[[str], None], on_hangup: Callable[[], None]
    ) -> None:
        """Tell a loop of the signals, of those that came before too.

        Args:
            loop: where the others are called.
            on_stop: given the name of the signal.
            on_hangup: for SIGHUP, unless it means stop.
        """

        def tell(name: str, stops: bool) -> None:
            # A loop that is closed has come to its end by itself.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(partial(on_stop, name) if stops else on_hangup)

        with self._mutex:
            self._tell = tell
            missed, self._missed = self._missed, []
        for name, stops in missed:
            tell(name, stops)

    def arm(self) -> None:
        """Begin to count the time, unless that has begun."""
        if self._armed is None:
            self._armed = time.monotonic()
            self._look_again()

    def armed_secs(self) -> float:
        """Seconds since the time is counted, 0 before; for any thread."""
        return 0.0 if self._armed is None else time.monotonic() - self._armed

    def _look_again(self) -> None:
        with suppress(OSError):
            self._mouth.send(_LOOK_AGAIN)

    def _watch(self) -> None:
        while not self._closed:
            due = inf if self._armed is None or self.limit is None else self._armed + self.limit
            patience = None if due == inf else max(0.0, due - time.monotonic())
            if not select.select([self._ears], [], [], patience)[0]:
                self._force(f"because the time of {self.limit:g} s was over")
                return
            for number in self._ears.recv(64):
                if number in (*STOPPING, signal.SIGHUP):
                    self._hear(signal.Signals(number))

    def _hear(self, number: signal.Signals) -> None:
        stops = number in STOPPING or self.hangup_stops
        if self._armed is None:
            if stops:
                self._armed = time.monotonic()
            self._pass_on(number.name, stops)
        elif number in STOPPING:
            # A hangup never forces: a terminal that closes sends it to whoever is left, and perhaps twice.
            self._force(f"by a second signal ({number.name})")

    def _pass_on(self, name: str, stops: bool) -> None:
        with self._mutex:
            if self._tell is None:
                self._missed.append((name, stops))
                return
        self._tell(name, stops)

    def _force(self, reason: str) -> None:
        try:
            words = self._last_words(reason) + self._kill()
            # A log that nobody reads, or whose lock the main thread holds, must not keep us here.
            speaker = threading.Thread(target=log.critical, args=("%s", words), daemon=True)
            speaker.start()
            speaker.join(WORDS_SECS)
        finally:
            self._leave(EX_FORCED)

    def _kill(self) -> str:
        try:
            self.kill()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must end
            return f"; plugins could not be killed: {error!r}"
        return ""

    def _last_words(self, reason: str) -> str:
        spent = time.monotonic() - (self._armed or time.monotonic())
        unfinished = self.unfinished() or "nothing of the shutdown itself"
        text = f"forced to end after {spent:.1f} s, {reason}; unfinished: {unfinished}"
        return f"{text}; the main thread is in {_whereabouts()}"


def _only_heard(number: int, frame: FrameType | None) -> None:
    """The signal has gone through the file descriptor already."""


def _whereabouts() -> str:
    """What the main thread is doing, innermost call first."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    places: list[str] = []
    while frame is not None and len(places) < FRAMES:
        places.append(f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})")
        frame = frame.f_back
    return ", called by ".join(places)
