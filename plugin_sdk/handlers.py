"""What people write as a handler, made into a coroutine function: threads for plain functions, time limits."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction, isgeneratorfunction
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

THREADS = 32

Handler = Callable[..., Any]


class Overrun(TimeoutError):
    """A handler exceeded its time limit."""


class HandlerThreads:
    """The threads in which plain functions run, started as they are needed.

    `awaited` counts those whose result somebody still waits for.

    Args:
        limit: how many at most; handlers beyond that wait for one that is free.
    """

    def __init__(self, limit: int = THREADS) -> None:
        self.awaited = 0
        self._limit = limit
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._inside: dict[int, str] = {}
        self._numbers = count(1)

    def wrap(self, function: Handler) -> Handler:
        """A coroutine function that runs `function` in a thread, with the context of its caller."""

        async def run(*args: Any, **named: Any) -> Any:
            work = partial(contextvars.copy_context().run, self._run, function, args, named)
            self.awaited += 1
            try:
                result = await asyncio.get_running_loop().run_in_executor(self._executor(), work)
            finally:
                self.awaited -= 1
            # A plain function such as `lambda event: plugin.publish(…)` hands over a coroutine instead of a result.
            return await result if isawaitable(result) else result

        return run

    def stuck(self) -> list[str]:
        """Names of the functions that threads are still inside of."""
        return sorted(set(self._inside.values()))

    def close(self) -> None:
        """Start nothing more. Threads cannot be stopped: what runs goes on until it returns."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _executor(self) -> ThreadPoolExecutor:
        if self._closed:
            raise RuntimeError("the session is closed: no handler can be started any more")
        if self._pool is None:
            # Imported late: many plugins have coroutine functions only, and start-up time matters.
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._limit, "plugin-handler")
        return self._pool

    def _run(self, function: Handler, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        call = next(self._numbers)
        self._inside[call] = name_of(function)
        try:
            return function(*args, **named)
        finally:
            del self._inside[call]


def as_coroutine(handler: Handler, threads: HandlerThreads, limit: float | None) -> Handler:
    """The handler as a coroutine function.

    Args:
        handler: coroutine function, plain function, or an object with such a `__call__`.
        threads: where a plain function runs.
        limit: seconds it may take, or None; a thread goes on behind an exceeded limit, but nobody waits for it.

    Raises:
        TypeError: it is a generator function, or nothing that can be called.
    """
    if not callable(handler):
        raise TypeError(f"a handler must be a function, not {handler!r:.80}")
    if isgeneratorfunction(handler) or isasyncgenfunction(handler):
        raise TypeError(f"handler {name_of(handler)} is a generator: only services may be, and async ones")
    run = handler if is_coroutine_function(handler) else threads.wrap(handler)
    return run if limit is None else _limited(run, limit)


def is_coroutine_function(handler: Handler) -> bool:
    """Whether calling it gives a coroutine; true also for objects with an `async def __call__`."""
    return iscoroutinefunction(handler) or iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def name_of(handler: Handler) -> str:
    """What to call a handler in texts."""
    return getattr(handler, "__qualname__", None) or repr(handler)


@asynccontextmanager
async def time_limit(limit: float | None) -> AsyncIterator[None]:
    """Cancel what runs inside after `limit` seconds, None for no limit; raises Overrun then, and only then."""
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise Overrun(f"it exceeded its time limit of {limit:g} s") from None
        raise


def _limited(run: Handler, limit: float) -> Handler:
    async def limited(*args: Any, **named: Any) -> Any:
        async with time_limit(limit):
            return await run(*args, **named)

    return limited
