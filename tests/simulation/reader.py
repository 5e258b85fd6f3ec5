"""A subscription of a process: what has come for it must reach its handler, once and in order."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plugin_sdk.events import Event
from plugin_sdk.inlets import ACK_SECS
from plugin_sdk.subscriptions import Subscription
from plugin_sdk.wire.deadlines import RESOLUTION
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.subjects import matches
from tests.simulation.content import Key

if TYPE_CHECKING:
    from tests.simulation.process import Process


@dataclass(frozen=True, slots=True)
class Plan:
    """How a subscription is to be made, and how its handler behaves: seconds per event, and which ones it fails on."""

    pattern: str
    options: dict[str, Any]
    iterate: bool = False
    secs: float = 0.0
    fails_on: int = 0


class Reader:
    """One subscription and its handler, or the loop that iterates it.

    Args:
        process: whose it is.
        plan: how.
    """

    def __init__(self, process: Process, plan: Plan) -> None:
        assert process.bus is not None, "the process has registered"
        self._process = process
        self._plan = plan
        self._last: dict[str, int] = {}
        self.arrived: deque[Key] = deque()
        self.in_force = False
        self.ending = False
        self.number = 0
        self._asked_to_end = 0.0
        self.working = 0
        handler = None if plan.iterate else self._on_batch if plan.options.get("batch") else self._on_event
        if plan.options.pop("filtered", False):
            plan.options["filter"] = self._filter
        self.subscription: Subscription = process.bus.subscribe(plan.pattern, handler, **plan.options)
        self._checks_in_filter = "filter" in plan.options
        process.readers[self.subscription] = self

    async def start(self) -> None:
        """Subscribe, and read if there is no handler."""
        try:
            await self.subscription
        except BusError:
            self.ending = True
            return
        self.in_force = True
        self.number = self.subscription._number
        if self._plan.iterate:
            self._process.spawn("living", self._iterate)

    async def stop(self) -> None:
        """Unsubscribe; what has come by then is still handled, except what an iterator did not take."""
        self.in_force, self.ending = False, True
        self._asked_to_end = self._process.world.loop.time()
        try:
            await self.subscription.unsubscribe()
        except BusError:
            return
        finally:
            self.number = 0
            if self._plan.iterate:
                self.arrived.clear()
        if self.arrived and self._process.is_open:
            self._fault(f"ended without handling {list(self.arrived)}")

    def waits_for_its_end(self) -> bool:
        """Whether it must still take what comes: it was told to end, and has neither been answered nor given up."""
        return self.ending and self._process.world.loop.time() < self._asked_to_end + ACK_SECS - RESOLUTION

    async def _iterate(self) -> None:
        try:
            async for event in self.subscription:
                self.working = 1
                if not (self.ending or self._checks_in_filter):
                    self._begin(event)
                await asyncio.sleep(self._plan.secs)
                self.working = 0
        except BusError:
            self.ending = True

    async def _on_event(self, event: Event) -> None:
        key = self._begin(event) if not self._checks_in_filter else _key(event)
        await self._work(key)

    async def _on_batch(self, events: list[Event]) -> None:
        if len(events) > self._plan.options["batch"]:
            self._fault(f"got a batch of {len(events)}")
        if not self._checks_in_filter:
            for event in events:
                self._begin(event)
        await self._work(_key(events[-1]))

    def _filter(self, data: Any) -> bool:
        """Lets most events pass; here it shows that each is looked at once, in order."""
        key: Key = (data[0], data[1])
        if not (self._plan.iterate and self.ending):
            self._check(key)
        return key[1] % 5 != 0

    def _begin(self, event: Event) -> Key:
        key = _key(event)
        if not matches(self._plan.pattern, event.subject):
            self._fault(f"got {key} of subject {event.subject}")
        self._check(key)
        return key

    def _check(self, key: Key) -> None:
        if not self._process.alive:
            return
        expected = self.arrived.popleft() if self.arrived else None
        if key != expected:
            self._fault(f"handles {key} where {expected} comes next")
        who, number = key
        # After a reconnect the last values come once more: what somebody asks for by `last`.
        if number <= self._last.get(who, -1) and not self._plan.options.get("last"):
            self._fault(f"handles {key} after number {self._last[who]}")
        self._last[who] = number

    async def _work(self, key: Key) -> None:
        self.working += 1
        try:
            await asyncio.sleep(self._plan.secs)
        finally:
            self.working -= 1
        if self._plan.fails_on and key[1] % self._plan.fails_on == 0:
            raise ValueError("this handler fails now and then")

    def _fault(self, text: str) -> None:
        self._process.world.fault(f"the subscription of {self._process.who} to {self._plan.pattern} {text}")


def _key(event: Event) -> Key:
    data = event.data
    return data[0], data[1]
