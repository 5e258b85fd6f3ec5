"""What the SDK promises to plugins holds over a broker process and over the mesh in memory alike."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plugin_sdk import BusError, CallError, Event, Plugin
from plugin_sdk.testing import Mesh
from tests.contract.mesh.conftest import Open
from tests.unit.sdk.coroutines import until


def make_shop(handled: list[Any]) -> Plugin:
    plugin = Plugin("shop", version="1.2.3")

    @plugin.service("greet")
    async def greet(name: str, *, caller: dict[str, Any]) -> str:
        return f"{plugin.config.get('greeting', 'Hello')} {name}, {caller['name']}"

    @plugin.service("count")
    async def count(n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @plugin.service("slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    @plugin.service("fail")
    def fail(how: str) -> None:
        if how == "own":
            raise CallError("not_found", "there is none", {"how": how})
        raise ValueError(how)

    @plugin.subscribe("order.*", filter={"priority": "high"})
    async def on_order(event: Event) -> None:
        handled.append((event.subject, event.data["id"], event.headers))
        await plugin.publish("shop.shipped", event.data["id"])

    return plugin


async def test_a_plugin_gets_its_configuration_and_serves(venue: Open) -> None:
    async with venue() as mesh:
        bus = await mesh.client("ada")
        await mesh.start(make_shop([]), {"greeting": "Hi"})
        assert await bus.call("shop.greet", "there") == "Hi there, ada"
        assert [piece async for piece in bus.stream("shop.count", 200)] == list(range(200))


async def test_events_are_filtered_handled_and_lead_to_others(venue: Open) -> None:
    handled: list[Any] = []
    async with venue() as mesh:
        bus = await mesh.client()
        await mesh.start(make_shop(handled))
        async with bus.subscribe("shop.>") as shipped:
            for number, priority in enumerate(["low", "high", "low", "high"]):
                order = {"id": number, "priority": priority}
                await bus.publish("order.created", order, headers={"message-id": f"m{number}"})
            assert [(await anext(shipped)).data for _ in range(2)] == [1, 3]
    assert handled == [("order.created", 1, {"message-id": "m1"}), ("order.created", 3, {"message-id": "m3"})]


async def test_every_request_that_cannot_be_answered_ends_with_its_cause(venue: Open) -> None:
    async with venue() as mesh:
        bus = await mesh.client()
        await mesh.start(make_shop([]))
        for service, args, code in [
            ("nobody.there", None, "unavailable"),
            ("not a name", None, "bad_subject"),
            ("$plugin.stop", None, "denied"),
            ("shop.greet", None, "bad_request"),
            ("shop.count", 3, "bad_request"),
            ("shop.fail", "own", "not_found"),
            ("shop.fail", "bug", "failed"),
        ]:
            with pytest.raises(CallError) as caught:
                await bus.call(service, args)
            assert caught.value.code == code, service


async def test_deadline_and_patience_are_kept_by_the_broker(venue: Open) -> None:
    async with venue() as mesh:
        bus = await mesh.client()
        await mesh.start(make_shop([]))
        slow = asyncio.create_task(bus.call("shop.slow", timeout=0.2))
        waiting = asyncio.create_task(bus.call("nobody.there", timeout=5, wait_ready=0.2))
        if isinstance(mesh, Mesh):
            await mesh.advance(0.25)
        with pytest.raises(CallError, match="timeout: shop did not answer"):
            await slow
        with pytest.raises(CallError, match="unavailable: no plugin served"):
            await waiting


async def test_a_service_that_comes_late_answers_who_waited_for_it(venue: Open) -> None:
    async with venue() as mesh:
        bus = await mesh.client("ada")
        waiting = asyncio.create_task(bus.call("shop.greet", "you", timeout=10, wait_ready=10))
        await asyncio.sleep(0)
        await mesh.start(make_shop([]))
        assert await waiting == "Hello you, ada"


async def test_one_of_a_group_and_all_of_the_others_get_an_event(venue: Open) -> None:
    got: list[tuple[str, int]] = []
    async with venue() as mesh:
        for name, group in (("a", "g"), ("b", "g"), ("c", None), ("d", None)):
            member = await mesh.client(name)
            await member.subscribe("news.*", lambda event, name=name: got.append((name, event.data)), group=group)
        bus = await mesh.client()
        for number in range(20):
            await bus.publish("news.today", number)
        await until(lambda: len(got) == 60)
    for name in ("c", "d"):
        assert [number for who, number in got if who == name] == list(range(20))
    assert sorted(number for who, number in got if who in "ab") == list(range(20))


async def test_a_slow_subscriber_makes_its_publisher_wait_and_loses_nothing(venue: Open) -> None:
    gate, handled = asyncio.Event(), []
    async with venue() as mesh:
        slow, bus = await mesh.client("slow"), await mesh.client()

        async def handler(event: Event) -> None:
            await gate.wait()
            handled.append(event.data[0])

        await slow.subscribe("bulk.data", handler)

        async def publish() -> None:
            for number in range(400):
                await bus.publish("bulk.data", [number, bytes(50_000)])

        publishing = asyncio.create_task(publish())
        await until(lambda: bus._out._waiting)
        gate.set()
        await publishing
        await until(lambda: len(handled) == 400)
    assert handled == list(range(400))


async def test_last_values_wait_for_those_who_ask(venue: Open) -> None:
    async with venue() as mesh:
        bus = await mesh.client()
        await bus.publish("state.door", "open", retain=True)
        await bus.publish("state.door", "closed", retain=True)
        async with bus.subscribe("state.*", last=True) as events:
            assert (await anext(events)).data == "closed"


async def test_reserved_subjects_and_foreign_services_are_refused(venue: Open) -> None:
    async with venue() as mesh:
        plugin = make_shop([])
        await mesh.start(plugin)
        with pytest.raises(BusError, match="denied"):
            await plugin.bus.serve("other.service", lambda: None)
        bus = await mesh.client()
        with pytest.raises(BusError, match="denied"):
            await bus.serve("test.service", lambda: None)


async def test_a_crash_of_the_broker_costs_what_was_pending_and_nothing_more(venue: Open) -> None:
    handled: list[Any] = []
    async with venue() as mesh:
        bus = await mesh.client("ada")
        await mesh.start(make_shop(handled))
        async with bus.subscribe("shop.>") as shipped:
            pending = asyncio.create_task(bus.call("shop.slow", timeout=60))
            assert await bus.call("shop.greet", "you") == "Hello you, ada"
            await mesh.restart()
            with pytest.raises(CallError) as caught:
                await pending
            assert caught.value.code == "lost"
            assert await bus.call("shop.greet", "again", wait_ready=5) == "Hello again, ada"
            await bus.publish("order.created", {"id": 7, "priority": "high"})
            assert (await asyncio.wait_for(anext(shipped), 5)).data == 7
    assert [number for _, number, _ in handled] == [7]
