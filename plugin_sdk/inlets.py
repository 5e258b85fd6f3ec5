"""Events on their way from the session to the subscriptions of this process, and their credit back to the broker."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from plugin_sdk.calls import RequestFailed, is_undecided
from plugin_sdk.events import Event
from plugin_sdk.handlers import HandlerThreads
from plugin_sdk.peer import Peer
from plugin_sdk.tally import Tally
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import EVENT_OVERHEAD

ACK_SECS = 5.0

log = logging.getLogger("plugin_sdk")


class Inlet(Protocol):
    """A subscription, as far as it matters here."""

    pattern: str
    queue: deque[Event]

    def request(self, number: int) -> p.Subscribe:
        """The SUBSCRIBE for it."""

    def wake(self) -> None:
        """Events were put into the queue."""

    def end(self, error: BusError | None) -> None:
        """There will be no more, and why."""


S = TypeVar("S", bound=Inlet)


class Inlets(Generic[S]):
    """The subscriptions of a peer by id, and the credit that its events have used up.

    Args:
        peer: whose they are.
        threads: where plain handlers run.
    """

    def __init__(self, peer: Peer, threads: HandlerThreads) -> None:
        self.threads = threads
        self.tally = Tally()
        self._peer = peer
        self._inlets: dict[int, S] = {}
        self._in_force: set[int] = set()
        self._asked_for: set[int] = set()  # in the present session, which begins before all is restored in it
        self._owed = 0
        self._epoch = 0
        self.unclaimed = 0
        peer.add_part(self, {p.Event: self._on_event})

    def __iter__(self) -> Iterator[S]:
        return iter(self._inlets.values())

    async def add(self, subscription: S, timeout: float = ACK_SECS) -> int:
        """Put a subscription into force; returns its id."""
        await self._peer.until_open(timeout)
        number = self._peer.calls.next_ref()
        self._inlets[number] = subscription
        try:
            await self._ask_for(number, timeout)
        except BaseException as error:
            self._inlets.pop(number, None)
            self._asked_for.discard(number)
            if is_undecided(error) and self._peer.is_open:
                # It may be in force by now, and nobody would ever end it.
                self._peer.send(p.Unsubscribe(self._peer.calls.next_ref(), number))
            raise
        self._in_force.add(number)
        return number

    async def remove(self, number: int, timeout: float = ACK_SECS) -> None:
        """End a subscription; one whose session is gone has ended."""
        self._in_force.discard(number)
        try:
            if number in self._asked_for and self._peer.is_open:
                ref = self._peer.calls.next_ref()
                await self._peer.calls.ask(p.Unsubscribe(ref, number), ref, timeout)
        except RequestFailed as error:
            # Whatever else the reason is, it is not in force any more.
            if error.code == "timeout":
                raise
        finally:
            # Not before the broker has answered: what it has sent until then has gone to no other member of the group.
            self._inlets.pop(number, None)
            self._asked_for.discard(number)

    def release(self, event: Event) -> None:
        """An event has been handled: its credit goes back, if its session still stands."""
        if event.epoch == self._epoch:
            self._owed += event.cost
            if self._owed * 8 >= self._peer.window:
                self._peer.send(p.Credit(0, self._owed))
                self._owed = 0

    async def restore(self, timeout: float) -> None:
        """Subscribe again, in a new session; what the broker refuses ends with its reason."""
        await asyncio.gather(*(self._restore_one(number, timeout) for number in sorted(self._in_force)))

    def reset(self) -> None:
        """A new session begins with full credit; what is in hand belongs to the old one."""
        self._owed = 0
        self._epoch += 1
        self._asked_for.clear()

    def end(self, error: BusError | None) -> None:
        """There will be no further session."""
        subscriptions, self._inlets = self._inlets, {}
        self._in_force.clear()
        for subscription in subscriptions.values():
            subscription.end(error)

    async def _ask_for(self, number: int, timeout: float) -> None:
        self._asked_for.add(number)
        await self._peer.calls.ask(self._inlets[number].request(number), number, timeout)

    async def _restore_one(self, number: int, timeout: float) -> None:
        if number not in self._in_force:
            return  # it was ended in the meantime
        subscription = self._inlets[number]
        try:
            await self._ask_for(number, timeout)
        except RequestFailed as error:
            if error.code in ("lost", "timeout"):
                raise
            log.error("the subscription to %s could not be restored: %s", subscription.pattern, error)
            self._in_force.discard(number)
            self._asked_for.discard(number)
            self._inlets.pop(number, None)
            subscription.end(error)

    def _on_event(self, packet: p.Event) -> None:
        cost = len(packet.payload) + EVENT_OVERHEAD
        numbers = packet.subscriptions
        if len(numbers) == 1 and (subscription := self._inlets.get(numbers[0])) is not None:
            subscription.queue.append(Event(packet.subject, packet.payload, cost, self._epoch))
            self._peer.touched[subscription] = None
            return
        found = [each for each in map(self._inlets.get, numbers) if each is not None]
        if found:
            self._share(packet, found, cost)
        else:
            # A subscription that has just ended: nobody handles this, but its credit goes back.
            self.unclaimed += 1
            self.release(Event(packet.subject, packet.payload, cost, self._epoch))

    def _share(self, packet: p.Event, found: list[S], cost: int) -> None:
        """Each subscription gets an event of its own with its share of the cost, so that no handler sees another's."""
        share, rest = divmod(cost, len(found))
        for subscription in found:
            subscription.queue.append(Event(packet.subject, packet.payload, share + rest, self._epoch))
            self._peer.touched[subscription] = None
            rest = 0
