"""Handlers at work: a bounded number of tasks that take items from one queue.

A task per item would cost several microseconds each; here a worker awaits one handler after the other, and another
worker is started only when all are really waiting inside a handler. Each handler still runs inside a real task, so
that timeouts, cancellation and `asyncio.current_task` mean what they say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Handlers that never wait would keep the loop from reading, answering pings and giving credit back.
SLICE_SECS = 0.005


@dataclass(slots=True)
class HandlerStats:
    """What became of the items of one handler; times in seconds, of those that failed too."""

    handled: int = 0
    failed: int = 0
    filtered: int = 0
    total_time: float = 0.0
    longest: float = 0.0


def _nothing(item: object) -> None:
    """Nothing is to be settled."""


class Workers(Generic[T]):
    """Runs `run(item)` for every item put on `queue`, at most `limit` at a time, begun in order.

    Args:
        run: handles one item; returns how many things were handled, 0 when it was passed over.
        failed: told what `run` raised; must not raise itself.
        limit: how many items may be in hand at once.
        name: for the tasks, so that a debugger shows whose they are.
        plain: `run` is a handler itself: what it returns means nothing, and one item was handled.
        settle: told of each item once it is out of hand, whatever became of it.

    `task` is the one that has just begun with an item: to ask asyncio for it each time is slow.
    """

    __slots__ = (
        "_closed",
        "_empty",
        "_failed",
        "_finishing",
        "_limit",
        "_parked",
        "_plain",
        "_run",
        "_settle",
        "_tasks",
        "_watching",
        "name",
        "queue",
        "running",
        "stats",
        "task",
    )

    def __init__(
        self,
        run: Callable[[T], Awaitable[Any]],
        failed: Callable[[T, BaseException], None],
        limit: int,
        name: str,
        *,
        plain: bool = False,
        settle: Callable[[T], None] = _nothing,
    ) -> None:
        self._run = run
        self._failed = failed
        self._plain = plain
        self._settle = settle
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._parked: asyncio.Future[None] | None = None
        self._empty: asyncio.Future[None] | None = None
        self._watching = False
        self._finishing = False
        self._closed = False
        self.name = name
        self.queue: deque[T] = deque()
        self.running: dict[object, float] = {}
        self.task: asyncio.Task[Any] | None = None
        self.stats = HandlerStats()

    def busy_secs(self) -> float:
        """For how long the item that is longest in hand has been so; 0 when none is."""
        return perf_counter() - min(self.running.values()) if self.running else 0.0

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

    async def finish(self) -> None:
        """Return once everything on `queue` has been handled, and end.

        A handler that asks for it is not waited for, as it could never return: what is queued behind it is handled
        afterwards.
        """
        self.retire()
        if asyncio.current_task() in self._tasks:
            return
        while (self.queue or self.running) and not self._closed:
            if self._empty is None:
                self._empty = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._empty)
        self.close()

    def retire(self) -> None:
        """End once everything on `queue` has been handled."""
        self._finishing = True
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(None)

    def close(self) -> None:
        """Take nothing more and cancel what runs, except a handler that calls this itself."""
        self._closed = self._finishing = True
        self.queue.clear()
        caller = _current_task()
        for task in self._tasks:
            if task is not caller:
                task.cancel()
        self._tell_empty()

    def _hire(self) -> None:
        if self.queue and len(self._tasks) < self._limit and not self._closed:
            task = self._start()
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._watch()

    def _start(self) -> asyncio.Task[None]:
        """The task of one more worker."""
        return asyncio.get_running_loop().create_task(self._work(), name=self.name)

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
        if self._empty is not None and (self._closed or not (self.queue or self.running)):
            if not self._empty.done():
                self._empty.set_result(None)
            self._empty = None

    async def _work(self) -> None:
        while not self._closed:
            await self._work_off()
            self._tell_empty()
            if self._finishing or self._parked is not None:
                return
            self._parked = asyncio.get_running_loop().create_future()
            await self._parked

    async def _work_off(self) -> None:
        """Handle what is on the queue until nothing is."""
        queue, run, plain, settle, stats = self.queue, self._run, self._plain, self._settle, self.stats
        task = asyncio.current_task()
        try:
            while queue:
                began = perf_counter()
                slice_end = began + SLICE_SECS
                while queue and began <= slice_end:
                    item = queue.popleft()
                    self.running[task] = began
                    self.task = task
                    try:
                        result = await run(item)
                        handled: int = 1 if plain else result
                    except asyncio.CancelledError as error:
                        if _is_cancelled():
                            raise
                        # It awaited something that somebody else had cancelled: it failed, its worker goes on.
                        handled = self._note(item, error)
                    except Exception as error:  # noqa: BLE001 - the user's code: counted and logged, never fatal
                        handled = self._note(item, error)
                    finally:
                        settle(item)
                    ended = perf_counter()
                    stats.handled += handled
                    spent = ended - began
                    stats.total_time += spent
                    if spent > stats.longest:
                        stats.longest = spent
                    began = ended
                if queue:
                    await asyncio.sleep(0)
        finally:
            self.running.pop(task, None)

    def _note(self, item: T, error: BaseException) -> int:
        self.stats.failed += 1
        self._failed(item, error)
        return 0


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
