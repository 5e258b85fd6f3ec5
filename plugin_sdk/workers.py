"""Handlers at work: a bounded number of tasks that take items from one queue.

A task per item would cost several microseconds each; here a worker awaits one handler after the other, and another
worker is started only when all are really waiting inside a handler. Each handler still runs inside a real task, so
that timeouts, cancellation and `asyncio.current_task` mean what they say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Workers(Generic[T]):
    """Runs `run(item)` for every item pushed, at most `limit` at a time, begun in order.

    Args:
        run: handles one item; it must not raise.
        limit: how many items may be in hand at once.
        name: for the tasks, so that a debugger shows whose they are.
    """

    __slots__ = ("_closed", "_empty", "_limit", "_name", "_parked", "_run", "_tasks", "_watching", "busy", "queue")

    def __init__(self, run: Callable[[T], Awaitable[None]], limit: int, name: str) -> None:
        self._run = run
        self._limit = limit
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()
        self._parked: asyncio.Future[None] | None = None
        self._empty: asyncio.Future[None] | None = None
        self._watching = False
        self._closed = False
        self.queue: deque[T] = deque()
        self.busy = 0

    def wake(self) -> None:
        """See to it that what was put on `queue` is worked on."""
        parked = self._parked
        if parked is not None:
            self._parked = None
            if not parked.done():
                parked.set_result(None)
                self._watch()
                return
        if not self._watching:
            self._hire()

    async def drained(self) -> None:
        """Return once everything pushed has been handled."""
        while self.queue or self.busy:
            if self._empty is None:
                self._empty = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._empty)

    def close(self) -> None:
        """Take nothing more and cancel what runs."""
        self._closed = True
        self.queue.clear()
        for task in self._tasks:
            task.cancel()
        self._tell_empty()

    def _hire(self) -> None:
        if self.queue and len(self._tasks) < self._limit and not self._closed:
            task = asyncio.get_running_loop().create_task(self._work(), name=self._name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._watch()

    def _watch(self) -> None:
        if not self._watching and self._limit > 1:
            self._watching = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        # Runs after the worker's first step: what is still queued then waits behind a handler that waits.
        self._watching = False
        if self._parked is None:
            self._hire()

    def _tell_empty(self) -> None:
        if self._empty is not None and not (self.queue or self.busy):
            if not self._empty.done():
                self._empty.set_result(None)
            self._empty = None

    async def _work(self) -> None:
        queue, run = self.queue, self._run
        while not self._closed:
            while queue:
                item = queue.popleft()
                self.busy += 1
                try:
                    await run(item)
                finally:
                    self.busy -= 1
            self._tell_empty()
            if self._parked is not None:
                return
            self._parked = asyncio.get_running_loop().create_future()
            await self._parked
