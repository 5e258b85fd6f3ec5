"""Plain functions in threads, time limits, and what cannot be a handler."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from plugin_sdk.handlers import HandlerThreads, Overrun, as_coroutine
from tests.unit.sdk.coroutines import until


@pytest.fixture
def threads() -> Iterator[HandlerThreads]:
    made = HandlerThreads(limit=2)
    yield made
    made.close()


async def test_a_plain_function_runs_in_a_thread_of_its_own(threads: HandlerThreads) -> None:
    def handler(value: int, *, add: int) -> tuple[int, str]:
        return value + add, threading.current_thread().name

    result, name = await as_coroutine(handler, threads, None)(1, add=2)
    assert result == 3
    assert name.startswith("plugin-handler")


async def test_a_plain_function_sees_the_context_of_its_caller(threads: HandlerThreads) -> None:
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace")
    trace.set("abc")
    assert await as_coroutine(trace.get, threads, None)() == "abc"


async def test_a_plain_function_that_returns_a_coroutine_has_it_awaited(threads: HandlerThreads) -> None:
    async def work(value: int) -> int:
        return value * 2

    assert await as_coroutine(lambda value: work(value), threads, None)(4) == 8


async def test_an_object_with_a_coroutine_as_call_runs_on_the_loop(threads: HandlerThreads) -> None:
    class Handler:
        async def __call__(self, value: int) -> int:
            assert asyncio.current_task()
            return value

    assert await as_coroutine(Handler(), threads, None)(5) == 5


async def test_no_more_threads_than_the_limit_are_used(threads: HandlerThreads) -> None:
    inside = 0
    most = 0
    lock = threading.Lock()
    both = threading.Barrier(2)

    def handler() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        both.wait(5)
        with lock:
            inside -= 1

    run = as_coroutine(handler, threads, None)
    await asyncio.gather(*(run() for _ in range(8)))
    assert most == 2


async def test_an_exceeded_limit_is_told_apart_from_a_timeout_of_the_handler_itself(threads: HandlerThreads) -> None:
    async def slow() -> None:
        await asyncio.Event().wait()

    async def own() -> None:
        raise TimeoutError("the database did not answer")

    with pytest.raises(Overrun, match=r"exceeded its time limit of 0\.01 s"):
        await as_coroutine(slow, threads, 0.01)()
    with pytest.raises(TimeoutError, match="the database did not answer") as caught:
        await as_coroutine(own, threads, 5.0)()
    assert not isinstance(caught.value, Overrun)


async def test_a_thread_that_exceeds_its_limit_is_named_until_it_comes_back(threads: HandlerThreads) -> None:
    go_on = threading.Event()
    ended = threading.Event()

    def handler() -> None:
        go_on.wait(10)
        ended.set()

    with pytest.raises(Overrun):
        await as_coroutine(handler, threads, 0.01)()
    assert [name.split(".")[-1] for name in threads.stuck()] == ["handler"]
    go_on.set()
    assert ended.wait(5)
    await until(lambda: not threads.stuck())


async def test_nothing_is_started_after_the_end(threads: HandlerThreads) -> None:
    threads.close()
    with pytest.raises(RuntimeError, match="the session is closed"):
        await as_coroutine(print, threads, None)()


async def _async_generator(event: Any) -> AsyncIterator[int]:
    yield 1


def _generator(event: Any) -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (_generator, "_generator is a generator: only services may be, and async ones"),
        (_async_generator, "_async_generator is a generator"),
        ("on_event", "a handler must be a function, not 'on_event'"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_by_name(threads: HandlerThreads, handler: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        as_coroutine(handler, threads, None)
