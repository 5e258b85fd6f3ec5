"""An event loop without time, sockets and threads: the clock jumps to the next timer, and every run is the same.

What runs on it is ordinary asyncio code, so that the SDK is simulated as it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = 1000.0
RESOLUTION = 1e-9  # of the clock, as on Linux
LIVELOCK_TURNS = 20_000  # so many turns without time going on are no progress any more


class Stalled(Exception):
    """Nothing will ever happen again, or nothing but the same for ever."""


class Owner:
    """To whom the tasks belong that are started in a context, whoever starts them."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []

    def cancel_all(self) -> None:
        """End all of them, in the order in which they were started."""
        for task in self.tasks:
            task.cancel()
        self.tasks.clear()


OWNER: ContextVar[Owner | None] = ContextVar("OWNER", default=None)

_numbers = count()


class _Task(asyncio.Task[T]):
    """A task that is hashed by a number and not by its address, so that sets of tasks have the same order each time."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self._hash = next(_numbers)
        super().__init__(*args, **named)

    def __hash__(self) -> int:
        return self._hash


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on a clock of its own.

    It has the queue and the timers of its base class, without what a loop with descriptors, threads and a debug mode
    has to do in each turn: a simulation does little else than turning.

    Raises:
        Stalled: out of `run_until_complete`, when nothing is left that could wake anybody.
    """

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = START
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._turns = 0
        self.readers: dict[int, Callable[[], None]] = {}
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    def time(self) -> float:
        """Seconds of the virtual clock."""
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call it in the next turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it at a time of the virtual clock; of several at the same time the first comes first."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(_numbers), handle))
        return handle

    def _run_once(self) -> None:
        """One turn: what is ready, or else the clock jumps to the next timer."""
        ready, timers = self._ready, self._timers
        while timers and timers[0][2].cancelled():
            heappop(timers)
        if not ready and not self._stopping:
            if not timers:
                raise Stalled("everything waits, and nothing is left that could wake it")
            if timers[0][0] > self._now:
                self._now = timers[0][0]
                self._turns = 0
        self._turns += 1
        if self._turns > LIVELOCK_TURNS:
            raise Stalled(f"{LIVELOCK_TURNS} turns of the loop at one moment: something wakes itself for ever")
        # As every loop: timers run early by up to the resolution of the clock.
        end = self._now + RESOLUTION
        while timers and timers[0][0] < end:
            ready.append(heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is thrown away when its time comes."""

    def create_task(  # type: ignore[override]
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a task, and note whose it is."""
        task: asyncio.Task[T] = _Task(coro, loop=self, name=name, context=context)
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None:
            owner.tasks.append(task)
            if len(owner.tasks) > 256:
                owner.tasks = [each for each in owner.tasks if not each.done()]
        return task

    def add_reader(self, fd: int, callback: Callable[[], None], *args: Any) -> None:  # type: ignore[override]
        """Note who reads; the simulated socket calls it."""
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> bool:  # type: ignore[override]
        """Nobody reads any more."""
        return self.readers.pop(fd, None) is not None

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""
