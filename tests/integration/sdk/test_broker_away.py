"""Brokers that crash, freeze, stop and come back, over real sockets: nobody has to be restarted because of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import Bus, CallError, ConnectionLost, Event, Plugin, RegistrationError, connect
from plugin_sdk.discovery import find_broker
from plugin_sdk.life import assemble
from plugin_sdk.link import DealerLink
from tests.integration.sdk.processes import HEARTBEAT_SECS, BrokerProcess
from tests.unit.sdk.coroutines import until


@asynccontextmanager
async def running(broker: BrokerProcess, plugin: Plugin) -> AsyncIterator[Plugin]:
    """A plugin of this process, led by the broker as every one that is started by hand."""
    address = find_broker(home=broker.home, environ={})
    bus, life = assemble(plugin, DealerLink(address), address.token, address.endpoint)
    await bus.open()
    try:
        await until(lambda: life.state == "running")
        yield plugin
        await life.cleanup()
    finally:
        await bus.close()


def make_shop(handled: list[Any]) -> Plugin:
    plugin = Plugin("shop")

    @plugin.service("get")
    async def get() -> str:
        return "here"

    @plugin.service("slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    @plugin.subscribe("a.>", group="g")
    async def on_event(event: Event) -> None:
        handled.append(event.data)

    return plugin


async def test_a_crash_of_the_broker_is_ridden_out_by_plugins_publishers_and_callers(broker: BrokerProcess) -> None:
    handled: list[Any] = []
    async with connect(home=broker.home) as bus, running(broker, make_shop(handled)) as plugin:
        first = (bus.session, plugin.bus.session)
        pending = asyncio.create_task(bus.call("shop.slow"))
        assert await bus.call("shop.get") == "here"

        broker.kill()
        with pytest.raises(CallError, match="lost: the broker closed the connection or ended"):
            await pending
        waiting = asyncio.create_task(bus.publish("a.b", "published while the broker was away"))
        calling = asyncio.create_task(bus.call("shop.get", timeout=10, wait_ready=10))
        broker.start()

        await waiting
        assert await calling == "here"
        assert bus.session not in (0, *first)
        assert plugin.bus.session not in (0, *first)
        await bus.publish("a.b", "published afterwards")
        await until(lambda: "published afterwards" in handled)


async def test_waiting_for_a_broker_costs_neither_processor_nor_attempts_without_end(broker: BrokerProcess) -> None:
    failures: list[float] = []
    async with connect(home=broker.home) as bus:
        down = bus._peer._handshake.down

        def counted(reason: str) -> None:
            failures.append(time.monotonic())
            down(reason)

        bus._peer._handshake.down = counted  # type: ignore[method-assign]
        broker.kill()
        await until(lambda: failures)
        began, cpu = time.monotonic(), time.process_time()
        await until(lambda: len(failures) > 8, 10)
        elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
    assert elapsed > 0.5, "reconnects must come at growing distances"
    assert cpu < 0.25 * elapsed


async def test_a_frozen_broker_is_noticed_and_found_again(broker: BrokerProcess) -> None:
    handled: list[Any] = []
    async with connect(home=broker.home) as bus, running(broker, make_shop(handled)) as plugin:
        broker.freeze()
        pending = asyncio.create_task(bus.call("shop.slow", timeout=60))
        with pytest.raises(CallError, match=rf"lost: the broker was silent for {3 * HEARTBEAT_SECS:g} s"):
            await pending
        await until(lambda: not plugin.bus.is_open)
        broker.thaw()
        await asyncio.gather(bus.ready(10), plugin.bus.ready(10))
        assert await bus.call("shop.get", wait_ready=5) == "here"
        await bus.publish("a.b", 1)
        await until(lambda: handled == [1])
        sessions = (await bus.call("$broker.status", {}))["plugins"]
        assert len([each for each in sessions if each["name"] == "shop"]) == 1


async def test_a_broker_that_stops_reading_for_a_while_loses_no_event(tmp_path: Path) -> None:
    """Far more than the transport takes: publishers wait instead of failing or filling memory."""
    broker = BrokerProcess(tmp_path / "home")
    broker.environ["BROKER_BUS_HEARTBEAT_SECS"] = "30"
    broker.start()
    count, handled = 60_000, []
    try:
        async with connect(home=broker.home) as bus, connect(home=broker.home) as other:

            async def handler(event: Event) -> None:
                handled.append(event.data[0])

            await other.subscribe("a.b", handler)

            async def publish() -> None:
                for number in range(count):
                    await bus.publish("a.b", [number, "x" * 100])

            broker.freeze()
            publishing = asyncio.create_task(publish())
            await until(lambda: bus._out._waiting)
            broker.thaw()
            await publishing
            await until(lambda: len(handled) == count, 20)
    finally:
        broker.close()
    assert handled == list(range(count))


async def test_a_broker_that_stops_in_order_says_so_and_its_successor_is_found(broker: BrokerProcess) -> None:
    handled: list[Any] = []
    async with connect(home=broker.home) as bus:
        await bus.subscribe("a.b", lambda event: handled.append(event.data))
        assert await asyncio.to_thread(broker.stop) == 0
        await until(lambda: not bus.is_open)
        broker.start()
        await bus.ready(10)
        await bus.publish("a.b", 1)
        await until(lambda: handled == [1])


async def test_a_key_that_was_replaced_ends_the_bus_with_a_clear_error(broker: BrokerProcess) -> None:
    async with connect(home=broker.home) as bus:
        broker.kill()
        (broker.home / "keys" / "client.key").write_text("quite another key, made by the operator\n")
        broker.start()
        error = await asyncio.wait_for(asyncio.shield(bus.ended), 10)
        assert isinstance(error, RegistrationError)
        assert "bad_token: this token or key is unknown" in error.text
        with pytest.raises(ConnectionLost, match="bad_token"):
            await bus.publish("a.b")


async def test_what_was_said_before_the_end_arrives(broker: BrokerProcess) -> None:
    async with connect(home=broker.home) as bus, bus.subscribe("a.b") as events:
        for number in range(20):
            async with connect(home=broker.home) as short:
                await short.publish("a.b", number)
            assert (await asyncio.wait_for(anext(events), 5)).data == number


async def test_leaving_a_frozen_broker_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "home")
    broker.environ["BROKER_BUS_HEARTBEAT_SECS"] = "30"
    broker.start()
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    try:
        async with connect(home=broker.home) as bus:
            broker.freeze()
            await bus.publish("a.b")
            watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        watching.cancel()
    finally:
        broker.close()
    assert longest < 0.5


async def test_nobody_listens_and_no_such_place_are_told_apart(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/nobody.sock"
    with pytest.raises(ConnectionLost, match=f"no session with {endpoint} within 0.3 s"):
        await _connect(endpoint, 0.3)
    with pytest.raises(ConnectionLost, match="endpoint 'tcpp://x' is not usable"):
        await _connect("tcpp://x", 5)
    with pytest.raises(ConnectionLost, match="is not usable: File name too long"):
        await _connect("ipc:///" + "x" * 200, 5)


async def test_three_attempts_in_vain_are_told_with_their_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugin_sdk.handshake.ATTEMPT_SECS", 0.1)
    monkeypatch.setattr("plugin_sdk.registration.FIRST_WAIT", 0.001)
    with pytest.raises(RegistrationError) as caught:
        await _connect(f"ipc://{tmp_path}/nobody.sock", None)
    assert caught.value.code == "unavailable"
    _, _, causes = caught.value.text.partition("3 attempts: ")
    # The first one may be over before it is known why it was in vain.
    assert f"unavailable: nobody listens there (ipc://{tmp_path}" in causes


async def test_a_registration_can_be_given_up_at_any_moment(tmp_path: Path) -> None:
    for turns in (0, 1, 2, 5, 100):
        connecting = asyncio.ensure_future(_connect(f"ipc://{tmp_path}/nobody.sock", None))
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(connecting, 1)


async def _connect(endpoint: str, timeout: float | None) -> Bus:
    async with connect(endpoint, "some-key", timeout=timeout) as bus:
        return bus
