"""The publisher of a process: numbers its events, and knows which of them cannot have been lost."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from plugin_sdk.wire.errors import ConnectionLost
from tests.simulation.content import event

if TYPE_CHECKING:
    from tests.simulation.process import Process


class Publisher:
    """What a process publishes, one event after the other.

    A session carries events in order, so those which never arrived are the last of the session in which they were
    sent: none is lost between two that the broker took from one session, and none at all while a session stands.

    Args:
        process: whose it is.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._orders: deque[tuple[str, int, bool]] = deque()
        self._busy = False
        self._next = 0
        self._sent: dict[int, int] = {}  # events whose publish() has returned: session at its beginning
        self._last = (-1, 0)
        self.retained: set[int] = set()

    def order(self, subject: str, size: int, count: int, retain: bool) -> None:
        """Publish so many events of this size, in bytes."""
        self._orders.extend([(subject, size, retain)] * count)
        if not self._busy:
            self._busy = True
            self._process.spawn("publishing", self._publish_all)

    async def say(self, subject: str, size: int, count: int) -> None:
        """Publish so many events, and return once that is done."""
        self._orders.extend([(subject, size, False)] * count)
        if not self._busy:
            self._busy = True
            await self._publish_all()

    def on_routed(self, number: int, session: int) -> None:
        """The broker took an event of this process."""
        last, earlier = self._last
        if number <= last:
            self._process.world.fault(f"event {number} of {self._process.who} reached the broker after {last}")
        if session == earlier:
            lost = [each for each in range(last + 1, number) if each in self._sent]
            if lost:
                self._process.world.fault(f"events {lost} of {self._process.who} never reached the broker")
        self._last = (number, session)

    def lacking(self, session: int) -> list[int]:
        """Events that were published in a session which still stands, and did not reach the broker."""
        return [number for number, began in self._sent.items() if began == session and number > self._last[0]]

    async def _publish_all(self) -> None:
        process = self._process
        try:
            while self._orders and process.is_open:
                assert process.bus is not None, "it is open"
                assert process.peer is not None, "it is open"
                subject, size, retain = self._orders.popleft()
                number, self._next = self._next, self._next + 1
                if retain:
                    self.retained.add(number)
                session = process.peer.number
                try:
                    await process.bus.publish(subject, event((process.who, number), size), retain=retain)
                except ConnectionLost:
                    continue
                self._sent[number] = session
        finally:
            self._busy = False
