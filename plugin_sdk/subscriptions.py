"""Subscriptions of this process: events in, handlers or iterators out, credit back to the broker."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from inspect import iscoroutinefunction
from time import perf_counter
from types import TracebackType
from typing import Any

from plugin_sdk.events import Event
from plugin_sdk.peer import Peer
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.limits import EVENT_OVERHEAD
from plugin_sdk.wire.subjects import check_pattern
from plugin_sdk.workers import Workers

Handler = Callable[[Any], Any]
Predicate = Callable[[Any], Any]
ACK_SECS = 5.0

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


@dataclass(slots=True)
class HandlerStats:
    """What became of the events of one subscription; times in seconds."""

    handled: int = 0
    failed: int = 0
    filtered: int = 0
    busy_since: float = 0.0
    total_time: float = 0.0
    longest: float = 0.0

    def add(self, spent: float) -> None:
        """One more handler has run for so long."""
        self.handled += 1
        self.total_time += spent
        if spent > self.longest:
            self.longest = spent


class Inlets:
    """The subscriptions of a peer by id, and the credit that its events have used up."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._inlets: dict[int, Subscription] = {}
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
        except BaseException:
            self._inlets.pop(number, None)
            raise
        return number

    async def remove(self, number: int, timeout: float = ACK_SECS) -> None:
        """End a subscription."""
        if self._inlets.pop(number, None) is not None and self._peer.is_open:
            ref = self._peer.calls.next_ref()
            await self._peer.calls.ask(p.Unsubscribe(ref, number), ref, timeout)

    def release(self, event: Event) -> None:
        """An event has been handled by one of its holders; after the last one, its credit goes back."""
        event.holders -= 1
        if not event.holders and event.epoch == self._epoch:
            self._owed += event.cost
            if self._owed * 4 >= self._peer.window:
                self._peer.send(p.Credit(0, self._owed))
                self._owed = 0

    async def restore(self, timeout: float) -> None:
        """Subscribe again, in a new session."""
        for number, subscription in list(self._inlets.items()):
            await self._peer.calls.ask(subscription.request(number), number, timeout)

    def reset(self) -> None:
        """A new session begins with full credit; what is in hand belongs to the old one."""
        self._owed = 0
        self._epoch += 1

    def _on_event(self, packet: p.Event) -> None:
        cost = len(packet.payload) + EVENT_OVERHEAD
        found = [each for each in map(self._inlets.get, packet.subscriptions) if each is not None]
        event = Event(packet.subject, packet.payload, cost, len(found) or 1, self._epoch)
        if not found:
            # A subscription that has just ended: nobody handles this, but its credit goes back.
            self.unclaimed += 1
            self.release(event)
        touched = self._peer.touched
        for subscription in found:
            subscription.queue.append(event)
            touched[subscription] = None


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
        self.stats = HandlerStats()
        self._inlets = inlets
        self._number = 0
        self._waiter: asyncio.Future[None] | None = None
        self._held: Event | None = None
        self._keep = _predicate(options.filter)
        self._workers: Workers[Event] | None = None
        self.queue: deque[Event] = deque()
        if handler is not None:
            self._call = _as_coroutine(handler, options)
            self._workers = Workers(self._handle, options.concurrency, f"subscription {pattern}")
            self.queue = self._workers.queue

    async def start(self) -> Subscription:
        """Put it into force; raises CallError when the broker refuses it."""
        self._number = await self._inlets.add(self)
        return self

    async def unsubscribe(self) -> None:
        """End it: no more events arrive, what has arrived is handled."""
        number, self._number = self._number, 0
        if number:
            await self._inlets.remove(number)
        if self._workers is not None:
            await self._workers.drained()
            self._workers.close()
        self._let_go()
        while self.queue:
            self._inlets.release(self.queue.popleft())
        self.wake()

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
        if self._workers is not None:
            self._workers.wake()

    def __await__(self) -> Generator[Any, None, Subscription]:
        return self.start().__await__()

    async def __aenter__(self) -> Subscription:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.unsubscribe()

    def __aiter__(self) -> AsyncIterator[Event]:
        if self._workers is not None:
            raise TypeError(f"the subscription to {self.pattern!r} has a handler: iterate one without")
        return self

    async def __anext__(self) -> Event:
        while True:
            self._let_go()
            while not self.queue:
                if not self._number:
                    raise StopAsyncIteration
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            event = self._held = self.queue.popleft()
            if self._keep is None or self._passes(event):
                return event

    def _let_go(self) -> None:
        if self._held is not None:
            self._inlets.release(self._held)
            self._held = None

    def _passes(self, event: Event) -> bool:
        try:
            if self._keep is None or self._keep(event.data):
                return True
        except Exception as error:  # noqa: BLE001 - a predicate is the user's code: counted and logged, never fatal
            self._failed(event, error)
            return False
        self.stats.filtered += 1
        return False

    async def _handle(self, event: Event) -> None:
        """Run the handler for one event, or for the batch that begins with it."""
        if self.options.batch:
            await self._handle_batch(event)
            return
        stats = self.stats
        started = stats.busy_since = perf_counter()
        try:
            if self._keep is None or self._passes(event):
                await self._call(event)
                stats.add(perf_counter() - started)
        except Exception as error:  # noqa: BLE001 - a handler is the user's code: counted and logged, never fatal
            self._failed(event, error)
        finally:
            stats.busy_since = 0.0
            self._inlets.release(event)

    async def _handle_batch(self, first: Event) -> None:
        batch = [first]
        try:
            await self._gather(batch)
            wanted = [event for event in batch if self._keep is None or self._passes(event)]
            started = self.stats.busy_since = perf_counter()
            if wanted:
                await self._call(wanted)
                self.stats.add(perf_counter() - started)
                self.stats.handled += len(wanted) - 1
        except Exception as error:  # noqa: BLE001 - a handler is the user's code: counted and logged, never fatal
            self._failed(first, error)
        finally:
            self.stats.busy_since = 0.0
            for event in batch:
                self._inlets.release(event)

    async def _gather(self, batch: list[Event]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.options.batch_wait
        while len(batch) < self.options.batch:
            if self.queue:
                batch.append(self.queue.popleft())
                continue
            left = until - loop.time()
            if left <= 0:
                return
            waiter = self._waiter = loop.create_future()
            await asyncio.wait([waiter], timeout=left)

    def _failed(self, event: Event, error: Exception) -> None:
        self.stats.failed += 1
        log.error(
            "handler of %s failed on event %s %s: %s: %s",
            self.pattern,
            event.subject,
            _identify(event),
            type(error).__name__,
            str(error) or "time limit exceeded",
            exc_info=error,
        )


def _identify(event: Event) -> str:
    try:
        return event.id or "(no id)"
    except Exception:  # noqa: BLE001 - whatever is wrong with the event must not hide the first error
        return "(malformed)"


def _predicate(condition: Predicate | dict[str, Any] | None) -> Predicate | None:
    if isinstance(condition, dict):
        wanted = condition.items()
        return lambda data: isinstance(data, dict) and all(data.get(name) == value for name, value in wanted)
    return condition


def in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """A coroutine function that runs a plain one in the thread pool."""

    async def run(*args: Any, **named: Any) -> Any:
        return await asyncio.to_thread(function, *args, **named)

    return run


def _as_coroutine(handler: Handler, options: SubscribeOptions) -> Handler:
    """The handler as a coroutine function: plain functions run in the thread pool, time limits are enforced."""
    if iscoroutinefunction(handler) and options.timeout is None:
        return handler
    run: Handler = handler if iscoroutinefunction(handler) else in_thread(handler)
    limit = options.timeout

    async def bounded(argument: Any) -> None:
        async with asyncio.timeout(limit):
            await run(argument)

    return bounded
