"""Subscriptions of this process: events in, handlers or iterators out, credit back to the broker."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Generator
from types import TracebackType
from typing import Any

from plugin_sdk.events import Event
from plugin_sdk.handlers import Handler, as_coroutine
from plugin_sdk.inlets import Inlets
from plugin_sdk.options import Predicate, SubscribeOptions
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.subjects import check_pattern
from plugin_sdk.workers import HandlerStats, Workers

log = logging.getLogger("plugin_sdk")


class Subscription:
    """One subscription: awaited it is put into force; as `async with` it also ends; iterated it yields events.

    Args:
        inlets: those of the bus.
        pattern: what to subscribe to.
        handler: called with each event, or with lists of them; None to iterate instead.
        options: how.
    """

    workers_type: type[Workers[Any]] = Workers

    def __init__(
        self, inlets: Inlets[Subscription], pattern: str, handler: Handler | None, options: SubscribeOptions
    ) -> None:
        self.pattern = check_pattern(pattern)
        self.options = options
        self._inlets = inlets
        self._number = 0
        self._waiter: asyncio.Future[None] | None = None
        self._held: Event | None = None
        self._keep = _predicate(options.filter)
        self._leaving = asyncio.Lock()
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
            return self.workers_type(self._handle_batch, self._failed, limit, name)
        if self._keep is None:
            # The most usual case by far: nothing stands between the worker and the handler.
            return self.workers_type(self._call, self._failed, limit, name, plain=True, settle=release)
        return self.workers_type(self._handle, self._failed, limit, name, settle=release)

    async def start(self) -> Subscription:
        """Put it into force, once; raises CallError when the broker refuses it."""
        if not self._number:
            self._number = await self._inlets.add(self)
            self._inlets.tally.begin(self.stats)
        return self

    async def unsubscribe(self) -> None:
        """End it: no more events arrive; what has arrived is handled first, except what an iterator did not take."""
        try:
            # One after the other: events arrive until the broker has answered, also if this was asked for twice.
            async with self._leaving:
                number, self._number = self._number, 0
                try:
                    if number:
                        await self._inlets.remove(number)
                finally:
                    self._stop(None)
        finally:
            if self.workers is not None and self._ended:
                await self.workers.finish()
            self._inlets.tally.close(self.stats)

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
        """Nothing more will come: a batch is complete, an iterator ends; before it raises it gives what has arrived."""
        self._ended, self._error = True, error
        self._let_go()
        if self.workers is None and error is None:
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
