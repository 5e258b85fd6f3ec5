"""Passes on what plugins write, line by line, to those who subscribe to `$log.NAME` (OPS-7)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from broker.supervisor.levels import DEFAULT, level_of
from plugin_sdk.heads import Settled
from plugin_sdk.wire.conventions import TRACEPARENT
from plugin_sdk.wire.errors import BusError

LINES_PER_SEC = 200.0
BURST_LINES = 1000.0
WAITING_LINES = 5000  # of all plugins, until the bus takes them
LONGEST_LINE = 4000  # bytes; a longer one is passed on without its end
LOOK_SECS = 0.5  # for so long it is remembered whether somebody listens

# As the SDK ends the lines of a plugin that is traced.
_IDS = re.compile(r" trace_id=([0-9a-f]{32}) span_id=([0-9a-f]{16})$", re.ASCII)

log = logging.getLogger("broker.logs")


@dataclass(slots=True)
class _Source:
    """One plugin: whether anybody listens to it, what is not a whole line yet, and what it may still say."""

    listened: bool = False
    looked: float = float("-inf")
    rest: bytes = b""
    level: str = DEFAULT
    allowance: float = BURST_LINES
    earned: float = field(default=0.0)
    dropped: int = 0


class LogFeed:
    """The lines of all plugins as events. Costs next to nothing while nobody listens.

    Args:
        publish: takes subject, data and headers.
        listeners: the names of those whose subscriptions cover a subject.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        publish: Callable[..., Awaitable[None]],
        listeners: Callable[[str], Collection[str]],
        clock: Callable[[], float],
    ) -> None:
        self._publish_line = publish
        self._listeners = listeners
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._waiting: deque[tuple[str, dict[str, Any], dict[str, str] | None]] = deque(maxlen=WAITING_LINES)
        self._task: asyncio.Task[None] | None = None

    def take(self, plugin_id: str, data: bytes) -> None:
        """A plugin has written this."""
        source = self._sources.setdefault(plugin_id, _Source())
        now = self._clock()
        if now - source.looked > LOOK_SECS:
            names = self._listeners(f"$log.{plugin_id}")
            # What a listener writes is for nobody: it may well write about what it has heard.
            source.listened, source.looked = bool(names) and plugin_id not in names, now
        if not source.listened:
            source.rest = b""
            return
        *lines, source.rest = (source.rest + data).split(b"\n")
        source.rest = source.rest[:LONGEST_LINE]
        source.allowance = min(BURST_LINES, source.allowance + (now - source.earned) * LINES_PER_SEC)
        source.earned = now
        for line in lines:
            self._queue(plugin_id, source, line)

    def _queue(self, plugin_id: str, source: _Source, line: bytes) -> None:
        text = line[:LONGEST_LINE].decode("utf-8", "replace")
        source.level = level_of(text, source.level)
        if source.allowance < 1:
            source.dropped += 1
            return
        source.allowance -= 1
        if source.dropped:
            note = f"[{source.dropped} lines were not passed on: written faster than {LINES_PER_SEC:g} a second]"
            source.dropped = 0
            self._waiting.append((plugin_id, {"message": note, "level": "warning", "logger": plugin_id}, None))
        text, headers = _with_context(text)
        self._waiting.append((plugin_id, {"message": text, "level": source.level, "logger": plugin_id}, headers))
        if self._task is None:
            self._task = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        try:
            while self._waiting:
                plugin_id, line, headers = self._waiting.popleft()
                # Settled, or each printed line would begin a trace.
                await self._publish_line(f"$log.{plugin_id}", line, headers=Settled(headers or {}))
        except BusError as error:
            log.debug("lines of plugins are not passed on: %s", error)
            self._waiting.clear()
        finally:
            self._task = None


def _with_context(text: str) -> tuple[str, dict[str, str] | None]:
    """A line without the ids at its end, and headers that say them; that it is passed on is recorded by nobody."""
    found = _IDS.search(text)
    return (text[: found.start()], {TRACEPARENT: f"00-{found[1]}-{found[2]}-00"}) if found else (text, None)
