"""What systemd is told in the course of the broker's life: ready, reloading, stopping, how it is, that it lives."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from broker.config import WatchdogSection
from broker.supervisor.view import PluginView
from broker.systemd.notify import Notifier, reloading, status
from broker.systemd.watchdog import Terms, Watchdog, agree

log = logging.getLogger("broker.systemd")

READY_SECS = 30.0  # so long one plugin that comes up slowly may keep the units waiting that come after the broker
STATUS_SECS = 2.0
SHOWN_NAMES = 5
MARGIN_SECS = 5.0  # the manager must not kill what the broker's own guard is just about to end
_MICRO = 1_000_000


class Announcer:
    """The broker's side of the talk with systemd; without systemd it keeps silent.

    Args:
        environ: of this process, as systemd made it.
        watchdog: its settings.
        prove: returns once the core has done a round of work.
        describe: one line about the broker.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        watchdog: WatchdogSection,
        prove: Callable[[], Awaitable[object]],
        describe: Callable[[], str],
    ) -> None:
        self._notifier = Notifier(environ)
        self._watchdog = watchdog
        self._terms = agree(environ, watchdog.enabled, watchdog.timeout_secs, watchdog.interval_secs)
        self._prove = prove
        self._describe = describe
        self._told = ""
        self._note = ""
        self._ready = False
        self._stopping = False
        self._reloads = 0
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, first_round: asyncio.Task[None]) -> None:
        """Registrations are accepted, and the plugins are being started.

        Args:
            first_round: done when every plugin runs or has failed.
        """
        if not self._notifier.is_heard:
            if self._watchdog.enabled:
                log.warning("shutdown.watchdog is enabled, but nobody watches: NOTIFY_SOCKET is not set")
            return
        self._own(self._get_ready(first_round))
        self._own(self._keep_telling())
        if self._terms is not None:
            self._begin_watchdog(self._terms)

    @contextmanager
    def reload(self) -> Iterator[Callable[[str], None]]:
        """While the configuration is read; what is yielded takes what went wrong, an empty text for nothing.

        A reload that systemd was told of must end with READY, also when it fails (systemd#37515).
        """
        self._reloads += 1
        if self._ready and not self._stopping:
            self._notifier.tell(reloading())
        try:
            yield self._take_note
        finally:
            self._reloads -= 1
            self._say_ready()

    def stopping(self, limit: float | None) -> None:
        """The shutdown begins.

        Args:
            limit: seconds after which the broker ends by itself, None when it never does.
        """
        self._stopping = True
        lines = ["STOPPING=1", status(self._line())]
        if limit is not None:
            # The settings may have changed since the unit with its TimeoutStopSec= was written.
            lines.append(f"EXTEND_TIMEOUT_USEC={round((limit + MARGIN_SECS) * _MICRO)}")
        self._notifier.tell(*lines)

    def close(self) -> None:
        """Nothing is told any more."""
        for task in self._tasks:
            task.cancel()
        self._notifier.close()

    async def _get_ready(self, first_round: asyncio.Task[None]) -> None:
        await asyncio.wait({first_round}, timeout=READY_SECS)
        self._ready = True
        self._say_ready()

    async def _keep_telling(self) -> None:
        while True:
            self._notifier.flush()
            if self._line() != self._told:
                self._told = self._line()
                self._notifier.tell(status(self._told))
            await asyncio.sleep(STATUS_SECS)

    def _begin_watchdog(self, terms: Terms) -> None:
        # The manager ends a broker that hangs with SIGABRT: the log then says where it hung.
        faulthandler.enable()
        if terms.announce:
            self._notifier.tell(f"WATCHDOG_USEC={terms.timeout_usec}")
        self._own(Watchdog(terms, self._prove, self._feed).run())
        log.info("systemd is given a sign of life every %g s, and waits %g s for one", terms.interval, terms.timeout)

    def _feed(self) -> None:
        if not self._stopping:
            self._notifier.tell("WATCHDOG=1")

    def _take_note(self, problem: str) -> None:
        self._note = problem

    def _say_ready(self) -> None:
        if self._ready and not self._reloads and not self._stopping:
            self._told = self._line()
            self._notifier.tell("READY=1", status(self._told))

    def _line(self) -> str:
        note = "" if self._stopping else self._note
        return "; ".join(filter(None, (self._describe(), note)))

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))


def count_plugins(views: Sequence[PluginView]) -> str:
    """How many plugins run, and which have failed, in one line."""
    states = Counter(view.state for view in views)
    running = states.pop("running", 0)
    failed = [view.name for view in views if view.state == "failed"]
    states.pop("failed", None)
    parts = [f"{running} plugin{'' if running == 1 else 's'} running"]
    if failed:
        names = ", ".join(failed[:SHOWN_NAMES]) + (", …" if len(failed) > SHOWN_NAMES else "")
        parts.append(f"{len(failed)} failed ({names})")
    parts += [f"{number} {state}" for state, number in sorted(states.items())]
    return ", ".join(parts)
