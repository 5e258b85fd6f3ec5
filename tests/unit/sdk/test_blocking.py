"""The bus for threads: the same results, no deadlock, and an end to every wait."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from plugin_sdk import CallError, ConnectionLost, Event, Plugin
from plugin_sdk.blocking import Blocking
from plugin_sdk.testing import Mesh
from tests.unit.sdk.coroutines import until


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run something in a thread of its own, so that no pool can be the reason when it hangs."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def run() -> None:
        try:
            result, error = work(), None
        except BaseException as caught:  # noqa: BLE001 - handed over to the test
            result, error = None, caught
        loop.call_soon_threadsafe(lambda: done.set_exception(error) if error else done.set_result(result))

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wait_for(done, 10)


async def test_a_plain_handler_publishes_and_calls(mesh: Mesh) -> None:
    plugin = Plugin("shop")

    @plugin.service("price")
    async def price(item: str) -> int:
        return len(item)

    @plugin.service("numbers")
    async def numbers(n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @plugin.subscribe("order.created")
    def on_order(event: Event) -> None:
        total = plugin.blocking.call("shop.price", event.data)
        pieces = list(plugin.blocking.stream("shop.numbers", 100))
        plugin.blocking.publish("order.priced", [total, len(pieces)])

    bus = await mesh.client()
    await mesh.start(plugin)
    await bus.publish("order.created", "tea")
    assert (await mesh.published.wait("order.priced")).data == [3, 100]


async def test_a_script_subscribes_for_as_long_as_a_block(mesh: Mesh) -> None:
    bus = await mesh.client()
    blocking = Blocking(bus)

    def script() -> list[Any]:
        with blocking.subscribe("a.*", timeout=5) as events:
            for number in range(3):
                blocking.publish("a.b", number)
            return [next(events).data for _ in range(3)]

    assert await in_thread(script) == [0, 1, 2]
    assert bus.subscriptions() == []


async def test_waiting_for_an_event_has_an_end(mesh: Mesh) -> None:
    blocking = Blocking(await mesh.client())

    def script() -> None:
        with blocking.subscribe("a.b", timeout=0.05) as events:
            next(events)

    with pytest.raises(CallError, match=r"timeout: could not wait for the next item within 0\.05 s"):
        await in_thread(script)


async def test_on_the_thread_of_the_loop_it_refuses_instead_of_waiting_for_itself(mesh: Mesh) -> None:
    blocking = Blocking(await mesh.client())
    with pytest.raises(RuntimeError, match=r"would stop the event loop.*use `await plugin\.publish"):
        blocking.publish("a.b")
    with pytest.raises(RuntimeError, match="would stop the event loop"):
        blocking.call("a.b")


async def test_publishing_waits_for_credit_until_its_time_is_over(mesh: Mesh) -> None:
    bus, slow = await mesh.client(), await mesh.client()
    blocking = Blocking(bus)

    def script() -> None:
        while True:
            blocking.publish("a.b", bytes(100_000), timeout=0.05)

    async with slow.subscribe("a.b", max_pending=1):
        with pytest.raises(CallError, match=r"timeout: could not publish within 0\.05 s"):
            await in_thread(script)


async def test_errors_are_those_of_the_bus(mesh: Mesh) -> None:
    blocking = Blocking(await mesh.client())
    with pytest.raises(CallError, match=r"unavailable: no plugin serves 'nobody\.there'"):
        await in_thread(lambda: blocking.call("nobody.there"))


async def test_a_closed_session_ends_every_wait(mesh: Mesh) -> None:
    bus = await mesh.client()
    blocking = Blocking(bus)
    waiting = asyncio.ensure_future(in_thread(lambda: blocking.call("nobody.there", wait_ready=30, timeout=30)))
    await until(lambda: mesh.snapshot().requests)
    await bus.close()
    with pytest.raises((ConnectionLost, CallError), match="this side closed the session"):
        await waiting
    with pytest.raises(ConnectionLost, match="this side closed the session"):
        await in_thread(lambda: blocking.publish("a.b"))


def test_after_the_end_of_the_loop_it_says_so(mesh: Mesh) -> None:
    async def make() -> Blocking:
        return Blocking(await mesh.client())

    blocking = mesh.run(make())
    with pytest.raises(ConnectionLost, match="the event loop of this session has ended"):
        blocking.publish("a.b")


async def test_a_loop_that_is_blocked_does_not_hold_a_thread_for_ever(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugin_sdk.blocking.PATIENCE_SECS", 0.05)
    blocking, caught = Blocking(await mesh.client()), []

    def script() -> None:
        try:
            blocking.call("a.b", timeout=0.05)
        except ConnectionLost as error:
            caught.append(error.text)

    thread = threading.Thread(target=script)
    thread.start()
    thread.join(5)  # on the loop's own thread: it is blocked meanwhile
    assert caught == ["the event loop of this session does not run, or is blocked"]
