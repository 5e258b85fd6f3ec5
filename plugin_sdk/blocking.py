"""The bus for code that waits: plain handlers, which run in threads, and scripts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from plugin_sdk.client import DEFAULT_TIMEOUT, Bus, connect
from plugin_sdk.events import Event
from plugin_sdk.link import new_loop
from plugin_sdk.wire.errors import BusError, CallError, ConnectionLost

T = TypeVar("T")

# A loop that is blocked answers nothing; after its own time limit, an operation is given so long to say so.
PATIENCE_SECS = 5.0


class Blocking:
    """The same operations as on Bus, each of which returns when it is done. May be used from any thread but the loop's.

    Args:
        bus: made on the running event loop.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop = asyncio.get_running_loop()

    def publish(
        self,
        subject: str,
        data: Any = None,
        *,
        headers: dict[str, str] | None = None,
        retain: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Publish an event: see Bus.publish.

        Args:
            subject: what it is about.
            data: anything msgpack can express.
            headers: text to text.
            retain: keep it as the subject's last value.
            timeout: seconds to wait for a slow subscriber, or for a broker that is away.

        Raises:
            CallError: code `timeout`; the event was not published.
            RuntimeError: this is the thread of the event loop.
        """
        self._do(lambda: self._bus.publish(subject, data, headers=headers, retain=retain), "publish", timeout)

    def call(
        self,
        service: str,
        args: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        wait_ready: float = 0.0,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Call a service and return its result: see Bus.call."""
        work = self._bus.call
        return self._run(lambda: work(service, args, timeout=timeout, wait_ready=wait_ready, headers=headers), timeout)

    def stream(self, service: str, args: Any = None, *, timeout: float = DEFAULT_TIMEOUT) -> Iterator[Any]:
        """Call a service that streams its reply, and iterate over the pieces: see Bus.stream."""
        pieces = self._bus.stream(service, args, timeout=timeout)
        try:
            yield from self._each(pieces, timeout)
        finally:
            # Without a session there is nobody who could be told that the rest is not wanted.
            with suppress(BusError):
                self._do(pieces.aclose, "end the stream", PATIENCE_SECS)

    @contextmanager
    def subscribe(self, pattern: str, *, timeout: float | None = None, **how: Any) -> Iterator[Iterator[Event]]:
        """Subscribe for as long as the block lasts; gives an iterator of events.

        Args:
            pattern: a subject; `*` stands for one token, a last `>` for one or more.
            timeout: seconds to wait for each event, None for ever.
            how: group, filter, overflow, max_pending or last, as for Bus.subscribe.

        Raises:
            CallError: the broker refused it, or, from the iterator, code `timeout`.
        """
        subscription = self._bus.subscribe(pattern, **how)
        self._run(subscription.start, DEFAULT_TIMEOUT)
        try:
            yield self._each(aiter(subscription), timeout)
        finally:
            self._run(subscription.unsubscribe, DEFAULT_TIMEOUT)

    def _each(self, items: AsyncIterator[T], timeout: float | None) -> Iterator[T]:
        while True:
            try:
                yield self._do(lambda: _next(items), "wait for the next item", timeout)
            except _End:
                return

    def _do(self, work: Callable[[], Coroutine[Any, Any, T]], what: str, timeout: float | None) -> T:
        """Do something that knows no time limit of its own."""

        async def limited() -> T:
            try:
                async with asyncio.timeout(timeout) as limit:
                    return await work()
            except TimeoutError:
                if limit.expired():
                    raise CallError("timeout", f"could not {what} within {timeout:g} s") from None
                raise

        return self._run(limited, timeout)

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None) -> T:
        if _running_loop() is self._loop:
            raise RuntimeError(
                "plugin.blocking would stop the event loop that has to do the work:"
                " in a coroutine use `await plugin.publish(…)` and `await plugin.call(…)`"
            )
        coroutine = work()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise ConnectionLost("the event loop of this session has ended", "cancelled") from None
        try:
            return future.result(None if timeout is None else timeout + PATIENCE_SECS)
        except CancelledError:
            raise ConnectionLost("this side closed the session", "cancelled") from None
        except TimeoutError:
            if future.cancel():
                raise ConnectionLost("the event loop of this session does not run, or is blocked", "timeout") from None
            raise


@contextmanager
def connect_blocking(
    endpoint: str | None = None,
    key: str | Path | None = None,
    home: str | Path | None = None,
    name: str = "",
    timeout: float | None = None,
) -> Iterator[Blocking]:
    """Connect to a broker from a script without an event loop: see connect() for arguments and errors."""
    with _loop_in_thread() as loop:
        bus = connect(endpoint, key, home, name, timeout)
        blocking = asyncio.run_coroutine_threadsafe(_blocking(bus.__aenter__()), loop).result()
        try:
            yield blocking
        finally:
            asyncio.run_coroutine_threadsafe(_as_coroutine(bus.__aexit__(None, None, None)), loop).result()


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever, name="plugmesh", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _blocking(bus: Any) -> Blocking:
    return Blocking(await bus)


async def _as_coroutine(work: Any) -> Any:
    return await work


class _End(Exception):
    """There is no next item; StopIteration cannot leave a coroutine."""


async def _next(items: AsyncIterator[T]) -> T:
    try:
        return await anext(items)
    except StopAsyncIteration:
        raise _End from None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
