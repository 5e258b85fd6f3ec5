"""Events as subscribers get them: filters, batches, limits, iterators, and the credit that goes back."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from plugin_sdk import Bus, BusError, CallError, Event, Plugin, SubscribeOptions
from plugin_sdk.testing import Mesh
from plugin_sdk.wire.codec import encode_payload
from tests.unit.sdk.coroutines import until


async def publish(bus: Bus, *data: Any, subject: str = "a.b") -> None:
    for each in data:
        await bus.publish(subject, each)


async def test_events_reach_handler_and_iterator_in_the_order_of_publication(mesh: Mesh) -> None:
    bus, handled = await mesh.client(), []

    async def handler(event: Event) -> None:
        handled.append(event.data)

    await bus.subscribe("a.*", handler)
    async with bus.subscribe("a.>") as events:
        await publish(bus, *range(100))
        seen = [(await anext(events)).data for _ in range(100)]
    await mesh.settle()
    assert seen == handled == list(range(100))


async def test_a_filter_is_a_function_of_the_data_or_a_map_of_fields(mesh: Mesh) -> None:
    bus, by_function, by_fields = await mesh.client(), [], []
    one = await bus.subscribe(
        "a.b", lambda event: by_function.append(event.data["n"]), filter=lambda data: data["n"] > 1
    )
    await bus.subscribe("a.b", lambda event: by_fields.append(event.data["n"]), filter={"priority": "high"})
    await publish(bus, {"n": 1, "priority": "high"}, {"n": 2, "priority": "low"}, {"n": 3, "priority": "high"})
    await mesh.settle()
    assert (by_function, by_fields) == ([2, 3], [1, 3])
    assert (one.stats.handled, one.stats.filtered, one.stats.failed) == (2, 1, 0)


async def test_a_filter_that_raises_costs_its_event_and_no_other(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    bus = await mesh.client()
    async with bus.subscribe("a.b", filter=lambda data: data["n"] > 1) as events:
        await publish(bus, {"other": 1}, {"n": 2})
        assert (await anext(events)).data == {"n": 2}
        assert events.stats.failed == 1
    assert "handler of a.b failed on event a.b (no id): KeyError: 'n'" in caplog.text


async def test_a_batch_is_handed_over_when_it_is_full_or_when_its_time_is_over(mesh: Mesh) -> None:
    bus, batches = await mesh.client(), []

    async def handler(events: list[Event]) -> None:
        batches.append([event.data for event in events])

    subscription = await bus.subscribe("a.b", handler, batch=3, batch_wait=10.0)
    await publish(bus, 1, 2, 3, 4)
    await mesh.advance(9)
    assert batches == [[1, 2, 3]]
    await mesh.advance(1.1)
    assert batches == [[1, 2, 3], [4]]
    assert subscription.stats.handled == 4


async def test_a_batch_is_complete_when_the_subscription_ends(mesh: Mesh) -> None:
    bus, batches = await mesh.client(), []
    subscription = await bus.subscribe("a.b", lambda events: batches.append(len(events)), batch=10, batch_wait=1000.0)
    await publish(bus, 1, 2)
    await mesh.settle()
    await subscription.unsubscribe()
    assert batches == [2]


async def test_a_batch_that_fails_counts_all_of_its_events(mesh: Mesh) -> None:
    bus = await mesh.client()

    async def handler(events: list[Event]) -> None:
        raise ValueError

    subscription = await bus.subscribe("a.b", handler, batch=2)
    await publish(bus, 1, 2)
    await until(lambda: subscription.stats.failed == 2)


async def test_a_handler_that_raises_is_counted_and_logged_with_subject_and_id_and_stops_nothing(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    bus, handled = await mesh.client(), []

    async def handler(event: Event) -> None:
        handled.append(1 / event.data)

    subscription = await bus.subscribe("a.*", handler)
    await bus.publish("a.b", 0, headers={"message-id": "m-17"})
    await bus.publish("a.c", 2)
    await mesh.settle()
    assert handled == [0.5]
    assert (subscription.stats.handled, subscription.stats.failed) == (1, 1)
    assert "handler of a.* failed on event a.b m-17: ZeroDivisionError: division by zero" in caplog.text


async def test_a_handler_that_overruns_is_counted_and_logged_and_the_next_event_is_handled(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    bus, handled = await mesh.client(), []

    async def handler(event: Event) -> None:
        if event.data == "stuck":
            await asyncio.Event().wait()
        handled.append(event.data)

    subscription = await bus.subscribe("a.b", handler, timeout=3.0)
    await publish(bus, "stuck", "next")
    await mesh.advance(2.9)
    assert handled == []
    await mesh.advance(0.2)
    assert handled == ["next"]
    assert (subscription.stats.failed, subscription.stats.handled) == (1, 1)
    assert "failed on event a.b (no id): Overrun: it exceeded its time limit of 3 s" in caplog.text


async def test_concurrency_bounds_the_handlers_of_one_subscription(mesh: Mesh) -> None:
    bus, inside, gate = await mesh.client(), [], asyncio.Event()

    async def handler(event: Event) -> None:
        inside.append(event.data)
        await gate.wait()

    await bus.subscribe("a.b", handler, concurrency=3)
    await publish(bus, *range(10))
    await mesh.settle()
    assert inside == [0, 1, 2]
    gate.set()
    await mesh.settle()
    assert inside == list(range(10))


async def test_a_plain_handler_runs_in_a_thread_and_does_not_stop_the_loop(mesh: Mesh) -> None:
    bus, go_on, handled = await mesh.client(), threading.Event(), []

    def handler(event: Event) -> None:
        go_on.wait(5)
        handled.append(event.data)

    await bus.subscribe("a.b", handler)
    await publish(bus, 1)
    async with bus.subscribe("a.c") as events:
        await publish(bus, 2, subject="a.c")
        assert (await anext(events)).data == 2
    assert handled == []
    go_on.set()
    await mesh.settle()
    assert handled == [1]


async def test_one_member_of_a_group_gets_each_event(mesh: Mesh) -> None:
    got: list[tuple[str, int]] = []
    for name in ("one", "two"):
        member = await mesh.client(name)
        await member.subscribe("a.b", lambda event, name=name: got.append((name, event.data)), group="workers")
    await publish(await mesh.client(), *range(10))
    await until(lambda: len(got) == 10)
    assert sorted(number for _, number in got) == list(range(10))
    assert {name for name, _ in got} == {"one", "two"}


async def test_no_event_is_lost_with_a_member_that_leaves_its_group(mesh: Mesh) -> None:
    publisher, handled = await mesh.client(), []
    members = [
        await (await mesh.client()).subscribe("a.b", lambda event: handled.append(event.data), group="g")
        for _ in range(2)
    ]
    await publish(publisher, *range(10))
    await asyncio.sleep(0)  # they are on their way
    await members[0].unsubscribe()
    await publish(publisher, *range(10, 20))
    await mesh.settle()
    assert sorted(handled) == list(range(20))


async def test_a_subscription_that_is_ended_twice_at_once_handles_what_is_on_its_way(mesh: Mesh) -> None:
    publisher, bus, handled = await mesh.client(), await mesh.client(), []
    subscription = await bus.subscribe("a.b", lambda event: handled.append(event.data))
    await publish(publisher, *range(10))
    await asyncio.gather(subscription.unsubscribe(), subscription.unsubscribe())
    assert handled == list(range(10))


async def test_a_handler_may_end_its_own_subscription(mesh: Mesh) -> None:
    bus, handled = await mesh.client(), []

    async def once(event: Event) -> None:
        handled.append(event.data)
        await subscription.unsubscribe()

    subscription = await bus.subscribe("a.b", once)
    await publish(bus, "first")
    await mesh.settle()
    await publish(bus, "second")
    await mesh.settle()
    assert handled == ["first"]
    assert bus.subscriptions() == []


async def test_unsubscribe_returns_after_what_had_arrived_is_handled(mesh: Mesh) -> None:
    bus, handled, gate = await mesh.client(), [], asyncio.Event()

    async def handler(event: Event) -> None:
        await gate.wait()
        handled.append(event.data)

    subscription = await bus.subscribe("a.b", handler)
    await publish(bus, 1, 2, 3)
    await mesh.settle()
    ending = asyncio.create_task(subscription.unsubscribe())
    await mesh.settle()
    assert not ending.done()
    gate.set()
    await ending
    assert handled == [1, 2, 3]


async def test_two_subscriptions_of_one_process_get_events_of_their_own(mesh: Mesh) -> None:
    bus, seen = await mesh.client(), []

    async def spoil(event: Event) -> None:
        event.data.clear()

    async def look(event: Event) -> None:
        seen.append(event.data)

    await bus.subscribe("a.>", spoil)
    await bus.subscribe("a.*", look)
    await publish(bus, {"user": 1})
    await mesh.settle()
    assert seen == [{"user": 1}]


@pytest.mark.parametrize("subscriptions", [1, 3])
async def test_all_credit_comes_back_however_many_subscriptions_an_event_is_for(mesh: Mesh, subscriptions: int) -> None:
    """Far more is published than the window of 1 MiB: it would stop if a byte in a hundred got lost."""
    bus, handled = await mesh.client(), 0

    async def handler(event: Event) -> None:
        nonlocal handled
        handled += 1

    for _ in range(subscriptions):
        await bus.subscribe("a.b", handler)
    for _ in range(400):
        await bus.publish("a.b", bytes(100_001))
    await until(lambda: handled == 400 * subscriptions)


async def test_credit_of_events_that_nobody_takes_any_more_comes_back(mesh: Mesh) -> None:
    bus, other = await mesh.client(), await mesh.client()
    for _ in range(20):
        async with bus.subscribe("a.b"):
            await other.publish("a.b", bytes(200_000))
    async with bus.subscribe("a.b") as events:
        await other.publish("a.b", "arrives")
        assert (await asyncio.wait_for(anext(events), 5)).data == "arrives"


async def test_an_iterator_ends_with_its_bus_instead_of_waiting_for_ever(mesh: Mesh) -> None:
    bus = await mesh.client()
    events = await bus.subscribe("a.b")
    waiting = asyncio.create_task(anext(aiter(events), "ended"))
    await mesh.settle()
    await bus.close()
    assert await asyncio.wait_for(waiting, 1) == "ended"


async def test_an_iterator_can_be_waited_for_with_a_limit_and_goes_on_afterwards(mesh: Mesh) -> None:
    bus = await mesh.client()
    async with bus.subscribe("a.b") as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.01)
        await publish(bus, 1)
        assert (await anext(events)).data == 1


async def test_two_tasks_cannot_share_an_iterator(mesh: Mesh) -> None:
    bus = await mesh.client()
    async with bus.subscribe("a.b") as events:
        first = asyncio.create_task(anext(events))
        await mesh.settle()
        with pytest.raises(RuntimeError, match="iterated by another task"):
            await anext(events)
        first.cancel()


async def test_a_subscription_is_iterated_only_when_it_is_in_force_and_has_no_handler(mesh: Mesh) -> None:
    bus = await mesh.client()
    with pytest.raises(TypeError, match="is not in force yet: await it"):
        aiter(bus.subscribe("a.b"))
    with pytest.raises(TypeError, match="has a handler"):
        aiter(await bus.subscribe("a.b", lambda event: None))


async def test_awaiting_a_subscription_twice_is_the_same_as_once(mesh: Mesh) -> None:
    bus = await mesh.client()
    async with await bus.subscribe("a.b") as events:
        await publish(bus, 1)
        assert (await anext(events)).data == 1
        assert len(bus.subscriptions()) == 1


async def test_a_subscribe_that_is_cancelled_leaves_nothing_behind_at_the_broker(mesh: Mesh) -> None:
    bus = await mesh.client()
    subscribing = asyncio.create_task(bus.subscribe("a.b").start())
    await asyncio.sleep(0)
    subscribing.cancel()
    await mesh.settle()
    assert [session.subscriptions for session in mesh.snapshot().sessions if session.name == "test"] == [()]


async def test_the_last_value_comes_to_those_who_ask_for_it(mesh: Mesh) -> None:
    bus = await mesh.client()
    await bus.publish("a.b", "kept", retain=True)
    async with bus.subscribe("a.*", last=True) as events:
        assert (await anext(events)).data == "kept"


async def test_an_event_that_is_no_msgpack_is_refused_by_name_where_it_is_looked_at(mesh: Mesh) -> None:
    event = Event("a.b", b"\x92\x80\xc4\x01\xc1")
    assert event.body == b"\xc1"
    with pytest.raises(BusError, match=r"bad_request: the body of .*a\.b.* is not msgpack"):
        _ = event.data


async def test_events_that_wait_do_not_call_the_garbage_collector() -> None:
    payload = encode_payload(b"")
    gc.collect()
    before = [each["collections"] for each in gc.get_stats()]
    waiting = [Event("a.b", payload) for _ in range(10_000)]
    assert [each["collections"] for each in gc.get_stats()] == before
    assert len(waiting) == 10_000


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"overflow": "drop"}, "overflow is 'drop': use one of block, drop_oldest, drop_newest, disconnect"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"max_pending": 0}, "max_pending 0: use 1 or more"),
        ({"batch": -1}, "batch is -1"),
        ({"timeout": 0}, "timeout is 0 s: use more than 0"),
        ({"group": "not a name"}, "name 'not a name' is not allowed"),
    ],
)
def test_options_that_make_no_sense_are_refused_where_they_are_written(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises((ValueError, BusError), match=complaint):
        SubscribeOptions(**options)


async def test_options_are_given_once_and_fit_what_is_asked_for(mesh: Mesh) -> None:
    bus = await mesh.client()
    with pytest.raises(TypeError, match="give either options= or group, not both"):
        bus.subscribe("a.b", options=SubscribeOptions(), group="g")
    with pytest.raises(TypeError, match="grup"):
        bus.subscribe("a.b", grup="g")
    with pytest.raises(ValueError, match=r"batch, timeout and concurrency of 'a\.b' are for handlers"):
        bus.subscribe("a.b", batch=5)


async def test_a_refused_subscription_says_why_and_is_gone(mesh: Mesh) -> None:
    bus = await mesh.client()
    with pytest.raises(CallError, match="max_pending is 10000000"):
        await bus.subscribe("a.b", max_pending=10_000_000)
    assert bus.subscriptions() == []


@pytest.mark.parametrize("headers", [{"n": 1}, {1: "n"}])
async def test_headers_that_are_no_text_are_refused_where_they_are_sent(mesh: Mesh, headers: Any) -> None:
    bus = await mesh.client()
    with pytest.raises(BusError, match=r"bad_request: header .* use text for both"):
        await bus.publish("a.b", 1, headers=headers)


async def test_data_over_the_limit_or_beyond_msgpack_is_refused_where_it_is_sent(mesh: Mesh) -> None:
    bus = await mesh.client()
    with pytest.raises(BusError, match=r"too_large: the data for 'a\.b' has 8388620 bytes, the broker takes 8387584"):
        await bus.publish("a.b", bytes(8 * 1024 * 1024))
    with pytest.raises(BusError, match=r"bad_request: the data for 'a\.b' cannot be encoded"):
        await bus.publish("a.b", object())


async def test_the_largest_event_passes_even_behind_others_in_one_frame(mesh: Mesh) -> None:
    bus, largest = await mesh.client(), 8 * 1024 * 1024 - 1024 - 12
    async with bus.subscribe("a.b") as events:
        await publish(bus, "x" * 30_000)
        await publish(bus, bytes(largest))
        assert [len((await anext(events)).data) for _ in range(2)] == [30_000, largest]


async def test_the_largest_request_and_the_largest_reply_pass_even_behind_others_in_one_frame(mesh: Mesh) -> None:
    plugin, largest = Plugin("shop"), 8 * 1024 * 1024 - 1024 - 12

    @plugin.service("echo")
    async def echo(data: bytes) -> bytes:
        return data

    bus = await mesh.client()
    await mesh.start(plugin)
    calls = [bus.call("shop.echo", bytes(size)) for size in (30_000, largest, 30_000, largest)]
    assert [len(data) for data in await asyncio.gather(*calls)] == [30_000, largest, 30_000, largest]


async def test_a_publisher_that_gives_up_waiting_leaves_nothing_behind(mesh: Mesh) -> None:
    """Credit is spent for good: a subscriber with the policy `block` takes nothing."""
    bus, slow = await mesh.client(), await mesh.client()
    async with slow.subscribe("a.b", max_pending=1):
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(publish(bus, *[bytes(100_000)] * 1000), 0.01)
        assert len(bus._out._waiting) == 0
