"""Subscriptions of this process: events in, handlers or iterators out, credit back to the broker."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from plugin_sdk.calls import RequestFailed
from plugin_sdk.events import Event
from plugin_sdk.handlers import Handler, HandlerThreads, as_coroutine
from plugin_sdk.peer import Peer
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import EVENT_OVERHEAD
from plugin_sdk.wire.subjects import check_name, check_pattern
from plugin_sdk.workers import HandlerStats, Workers

Predicate = Callable[[Any], Any]
ACK_SECS = 5.0
OVERFLOW = ("block", "drop_oldest", "drop_newest", "disconnect")

log = logging.getLogger("plugin_sdk")


@dataclass(frozen=True, slots=True)
class SubscribeOptions:
    """How events of one subscription are delivered.

    Args:
        group: queue group: one member gets each event.
        filter: only events whose data satisfies it reach the handler; a mapping means equality of these fields.
        batch: hand over lists of at most this many events; 0 hands over single ones.
        batch_wait: seconds to wait for a batch to fill, from its first event on.
        concurrency: handlers running at once; more than 1 gives up the order in which they end.
        timeout: seconds a handler may take, or None.
        overflow: what the broker does when this subscriber is slow: block, drop_oldest, drop_newest, disconnect.
        max_pending: events that may wait at the broker before that happens, or None for the broker's bound.
        last: begin with the last retained event of each matching subject.

    Raises:
        ValueError: one of them makes no sense.
        BadSubject: the group breaks the grammar of names.
    """

    group: str | None = None
    filter: Predicate | dict[str, Any] | None = None
    batch: int = 0
    batch_wait: float = 0.05
    concurrency: int = 1
    timeout: float | None = None
    overflow: str = "block"
    max_pending: int | None = None
    last: bool = False

    def __post_init__(self) -> None:
        if self.group is not None:
            check_name(self.group)
        if self.batch < 0 or self.batch_wait < 0:
            raise ValueError(f"batch is {self.batch} and batch_wait {self.batch_wait} s: use 0 or more")
        if self.concurrency < 1 or (self.max_pending is not None and self.max_pending < 1):
            raise ValueError(f"concurrency is {self.concurrency} and max_pending {self.max_pending}: use 1 or more")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout is {self.timeout} s: use more than 0, or None for no limit")
        if self.overflow not in OVERFLOW:
            raise ValueError(f"overflow is {self.overflow!r}: use one of {', '.join(OVERFLOW)}")


class Inlets:
    """The subscriptions of a peer by id, and the credit that its events have used up.

    Args:
        peer: whose they are.
        threads: where plain handlers run.
    """

    def __init__(self, peer: Peer, threads: HandlerThreads) -> None:
        self.threads = threads
        self._peer = peer
        self._inlets: dict[int, Subscription] = {}
        self._in_force: set[int] = set()
        self._owed = 0
        self._epoch = 0
        self.unclaimed = 0
        peer.add_part(self, {p.Event: self._on_event})

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._inlets.values())

    async def add(self, subscription: Subscription, timeout: float = ACK_SECS) -> int:
        """Put a subscription into force; returns its id."""
        await self._peer.until_open(timeout)
        number = self._peer.calls.next_ref()
        self._inlets[number] = subscription
        try:
            await self._peer.calls.ask(subscription.request(number), number, timeout)
        except BaseException as error:
            self._inlets.pop(number, None)
            if isinstance(error, asyncio.CancelledError) and self._peer.is_open:
                # It may be in force by now, and nobody would ever end it.
                self._peer.send(p.Unsubscribe(self._peer.calls.next_ref(), number))
            raise
        self._in_force.add(number)
        return number

    async def remove(self, number: int, timeout: float = ACK_SECS) -> None:
        """End a subscription; one whose session is gone has ended."""
        self._in_force.discard(number)
        if self._inlets.pop(number, None) is None or not self._peer.is_open:
            return
        ref = self._peer.calls.next_ref()
        try:
            await self._peer.calls.ask(p.Unsubscribe(ref, number), ref, timeout)
        except RequestFailed as error:
            if error.code != "lost":
                raise

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

    def end(self, error: BusError | None) -> None:
        """There will be no further session."""
        subscriptions, self._inlets = self._inlets, {}
        self._in_force.clear()
        for subscription in subscriptions.values():
            subscription.end(error)

    async def _restore_one(self, number: int, timeout: float) -> None:
        subscription = self._inlets[number]
        try:
            await self._peer.calls.ask(subscription.request(number), number, timeout)
        except RequestFailed as error:
            if error.code in ("lost", "timeout"):
                raise
            log.error("the subscription to %s could not be restored: %s", subscription.pattern, error)
            self._in_force.discard(number)
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

    def _share(self, packet: p.Event, found: list[Subscription], cost: int) -> None:
        """Each subscription gets an event of its own with its share of the cost, so that no handler sees another's."""
        share, rest = divmod(cost, len(found))
        for subscription in found:
            subscription.queue.append(Event(packet.subject, packet.payload, share + rest, self._epoch))
            self._peer.touched[subscription] = None
            rest = 0


class Subscription:
    """One subscription: awaited it is put into force; as `async with` it also ends; iterated it yields events.

    Args:
        inlets: those of the bus.
        pattern: what to subscribe to.
        handler: called with each event, or with lists of them; None to iterate instead.
        options: how.
    """

    def __init__(self, inlets: Inlets, pattern: str, handler: Handler | None, options: SubscribeOptions) -> None:
        self.pattern = check_pattern(pattern)
        self.options = options
        self._inlets = inlets
        self._number = 0
        self._waiter: asyncio.Future[None] | None = None
        self._held: Event | None = None
        self._keep = _predicate(options.filter)
        self._ended = False
        self._error: BusError | None = None
        self.workers: Workers[Event] | None = None
        if handler is None:
            if options.batch or options.timeout is not None or options.concurrency > 1:
                raise ValueError(f"batch, timeout and concurrency of {pattern!r} are for handlers: there is none")
            self.queue: deque[Event] = deque()
            self.stats = HandlerStats()
            return
        self._call = as_coroutine(handler, inlets.threads, options.timeout)
        self.workers = self._make_workers(f"subscription {pattern}")
        self.queue, self.stats = self.workers.queue, self.workers.stats

    def _make_workers(self, name: str) -> Workers[Event]:
        limit, release = self.options.concurrency, self._inlets.release
        if self.options.batch:
            return Workers(self._handle_batch, self._failed, limit, name)
        if self._keep is None:
            # The most usual case by far: nothing stands between the worker and the handler.
            return Workers(self._call, self._failed, limit, name, plain=True, settle=release)
        return Workers(self._handle, self._failed, limit, name, settle=release)

    async def start(self) -> Subscription:
        """Put it into force, once; raises CallError when the broker refuses it."""
        if not self._number:
            self._number = await self._inlets.add(self)
        return self

    async def unsubscribe(self) -> None:
        """End it: no more events arrive; what has arrived is handled first, except what an iterator did not take."""
        number, self._number = self._number, 0
        try:
            if number:
                await self._inlets.remove(number)
        finally:
            self._stop(None)
            if self.workers is not None:
                await self.workers.finish()

    def end(self, error: BusError | None) -> None:
        """The session will not come back: for this reason, or because this side closed it."""
        self._stop(error)
        if self.workers is None:
            return
        if error is None:
            self.workers.close()
        else:
            self.workers.retire()

    def request(self, number: int) -> p.Subscribe:
        """The SUBSCRIBE for it."""
        options: dict[str, Any] = {"overflow": self.options.overflow}
        if self.options.max_pending is not None:
            options["max_pending"] = self.options.max_pending
        if self.options.last:
            options["last"] = True
        return p.Subscribe(number, self.pattern, self.options.group, options)

    def wake(self) -> None:
        """Events were put into the queue."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.workers is not None:
            self.workers.wake()

    def __await__(self) -> Generator[Any, None, Subscription]:
        return self.start().__await__()

    async def __aenter__(self) -> Subscription:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.unsubscribe()

    def __aiter__(self) -> AsyncIterator[Event]:
        if self.workers is not None:
            raise TypeError(f"the subscription to {self.pattern!r} has a handler: iterate one without")
        if not (self._number or self._ended):
            raise TypeError(f"the subscription to {self.pattern!r} is not in force yet: await it, or use `async with`")
        return self

    async def __anext__(self) -> Event:
        self._let_go()
        while True:
            while not self.queue:
                if self._ended:
                    raise StopAsyncIteration if self._error is None else self._error
                await self._more()
            event = self.queue.popleft()
            if self._keep is None or self._passes(event):
                self._held = event
                return event
            self._inlets.release(event)

    async def _more(self) -> None:
        if self._waiter is not None:
            raise RuntimeError(f"the subscription to {self.pattern!r} is iterated by another task: use one of each")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _let_go(self) -> None:
        """The event that the iterator handed out last has been dealt with."""
        if self._held is not None:
            self.stats.handled += 1
            self._inlets.release(self._held)
            self._held = None

    def _stop(self, error: BusError | None) -> None:
        """Nothing more will come: a batch is complete, an iterator ends."""
        self._ended, self._error = True, error
        if self.workers is None:
            self._let_go()
            while self.queue:
                self._inlets.release(self.queue.popleft())
        self.wake()

    def _passes(self, event: Event) -> bool:
        try:
            if self._keep is None or self._keep(event.data):
                return True
        except Exception as error:  # noqa: BLE001 - a predicate is the user's code: counted and logged, never fatal
            self.stats.failed += 1
            self._failed(event, error)
            return False
        self.stats.filtered += 1
        return False

    async def _handle(self, event: Event) -> int:
        if not self._passes(event):
            return 0
        await self._call(event)
        return 1

    async def _handle_batch(self, first: Event) -> int:
        batch = [first]
        try:
            await self._gather(batch)
            wanted = [event for event in batch if self._keep is None or self._passes(event)]
            if wanted:
                await self._call(wanted)
            return len(wanted)
        except BaseException:
            # Workers counts one failure, as for a single event.
            self.stats.failed += len(batch) - 1
            raise
        finally:
            for event in batch:
                self._inlets.release(event)

    async def _gather(self, batch: list[Event]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.options.batch_wait
        while True:
            while self.queue and len(batch) < self.options.batch:
                batch.append(self.queue.popleft())
            left = until - loop.time()
            if len(batch) >= self.options.batch or left <= 0 or self._ended:
                return
            self._waiter = loop.create_future()
            await asyncio.wait([self._waiter], timeout=left)

    def _failed(self, event: Event, error: BaseException) -> None:
        log.error(
            "handler of %s failed on event %s %s: %s: %s",
            self.pattern,
            event.subject,
            _identify(event),
            type(error).__name__,
            error,
            exc_info=error,
        )


def _identify(event: Event) -> str:
    try:
        return event.id or "(no id)"
    except BusError:
        return "(malformed)"


def _predicate(condition: Predicate | dict[str, Any] | None) -> Predicate | None:
    if isinstance(condition, dict):
        wanted = condition.items()
        return lambda data: isinstance(data, dict) and all(data.get(name) == value for name, value in wanted)
    return condition
