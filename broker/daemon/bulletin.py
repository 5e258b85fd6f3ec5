"""The broker's own events, on subjects that begin with `$broker.`: what happens on the bus, for those who watch it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from broker.control.slow import describe_slow, slow_as_map
from broker.core.notices import SlowConsumer
from broker.telemetry.logs import Throttle
from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import BusError

SLOW_CONSUMER = "$broker.slow_consumer"
WAITING = 256  # events; an operator who subscribes with `block` and does not read makes the broker wait, too

_ENDS = {"recovered": "caught up", "gone": "left"}

log = logging.getLogger("broker")


class Bulletin:
    """Publishes what has happened, in order, without ever making anybody wait for it.

    Args:
        bus: the broker's own session.
        own: runs work that ends with the broker at the latest.
    """

    def __init__(self, bus: Bus, own: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._bus = bus
        self._waiting: deque[tuple[str, Mapping[str, Any]]] = deque(maxlen=WAITING)
        self._own = own
        self._task: asyncio.Task[None] | None = None
        self._throttle = Throttle(log)

    def slow_consumer(self, notice: SlowConsumer) -> None:
        """A subscriber does not keep up, or does again: say so in the log and on the bus."""
        facts = slow_as_map(notice.consumer)
        name, state = facts["name"], notice.state
        if state == "slow":
            kind = f"{name} is a slow consumer"
            self._throttle.warning(kind, time.monotonic(), "%s: %s", kind, describe_slow(facts))
        else:
            log.info("%s was a slow consumer for %.0f s, and has %s", name, facts["secs"], _ENDS[state])
        self.publish(SLOW_CONSUMER, {"state": notice.state, **facts})

    def publish(self, subject: str, data: Mapping[str, Any]) -> None:
        """Publish an event as soon as the bus takes it; when too many wait, the oldest makes room."""
        if len(self._waiting) == WAITING:
            self._throttle.warning(
                "an event of the broker's own was dropped",
                time.monotonic(),
                "%s was dropped: somebody who subscribed to $broker events with the policy block does not read them",
                self._waiting[0][0],
            )
        self._waiting.append((subject, data))
        if self._task is None or self._task.done():
            self._task = self._own(self._publish_all())

    async def _publish_all(self) -> None:
        while self._waiting:
            subject, data = self._waiting.popleft()
            # Without a session the broker is about to end, and nobody is left who could be told.
            with suppress(BusError):
                await self._bus.publish(subject, data)
