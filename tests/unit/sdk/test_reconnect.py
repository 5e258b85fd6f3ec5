"""Sessions that end and come back: what is carried over, what is lost, and that the loss is told."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from msgspec import Raw

from plugin_sdk import Bus, BusError, CallError, ConnectionLost, Event, Plugin, RegistrationError
from plugin_sdk.testing import MemoryBroker, MemoryLink, Mesh
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, encode_frame, encode_payload
from plugin_sdk.wire.limits import Limits


def link_of(mesh: Mesh, bus: Bus) -> MemoryLink:
    return mesh._links[bus]


def record_sent(monkeypatch: pytest.MonkeyPatch, link: MemoryLink) -> list[Any]:
    """Every packet that goes over the link from now on."""
    sent: list[Any] = []
    take = MemoryBroker.take

    def spy(broker: MemoryBroker, source: MemoryLink, frame: bytes) -> bool:
        if source is link:
            sent.extend(decode_frame(frame)[1])
        return take(broker, source, frame)

    monkeypatch.setattr(MemoryBroker, "take", spy)
    return sent


async def test_subscriptions_and_services_are_in_force_again_after_a_restart(mesh: Mesh) -> None:
    plugin, handled = Plugin("shop"), []

    @plugin.service("get")
    async def get() -> str:
        return "here"

    @plugin.subscribe("user.*", group="g")
    async def on_user(event: Event) -> None:
        handled.append(event.data)

    bus = await mesh.client()
    await mesh.start(plugin)
    async with bus.subscribe("news.>") as events:
        for number in range(3):
            await mesh.restart()
            assert await bus.call("shop.get") == "here"
            await bus.publish("user.login", number)
            await bus.publish("news.today", number)
            assert (await anext(events)).data == number
    await mesh.settle()
    assert handled == [0, 1, 2]


async def test_what_was_ended_before_the_restart_stays_ended(mesh: Mesh) -> None:
    bus = await mesh.client()
    subscription = await bus.subscribe("a.b", lambda event: None)
    await subscription.unsubscribe()
    await mesh.restart()
    assert [each.subscriptions for each in mesh.snapshot().sessions if each.name == "test"] == [()]


async def test_calls_that_were_pending_end_with_lost_and_streams_too(mesh: Mesh) -> None:
    plugin = Plugin("shop")

    @plugin.service("slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    bus = await mesh.client()
    await mesh.start(plugin)
    call = asyncio.create_task(bus.call("shop.slow"))
    stream = asyncio.ensure_future(anext(bus.stream("shop.slow")))
    await mesh.settle()
    await mesh.restart()
    for pending in (call, stream):
        with pytest.raises(CallError, match="lost: the broker ended"):
            await pending


async def test_an_answer_never_goes_to_another_request_of_the_next_session(mesh: Mesh) -> None:
    """Request numbers begin anew with the broker, so a handler that outlives its session could answer a stranger."""
    plugin, gate = Plugin("shop"), asyncio.Event()

    @plugin.service("slow")
    async def slow(name: str) -> str:
        while not gate.is_set():
            with suppress(asyncio.CancelledError):  # a handler that does not let itself be cancelled
                await gate.wait()
        return f"for {name}"

    bus = await mesh.client()
    await mesh.start(plugin)
    old = [asyncio.create_task(bus.call("shop.slow", "old")) for _ in range(5)]
    await mesh.settle()
    await mesh.restart()
    await asyncio.gather(*old, return_exceptions=True)
    new = [asyncio.create_task(bus.call("shop.slow", "new")) for _ in range(5)]
    await mesh.settle()
    gate.set()
    assert await asyncio.gather(*new) == ["for new"] * 5


async def test_an_answer_to_the_broker_never_goes_to_another_request_of_the_next_session(mesh: Mesh) -> None:
    plugin, asked, open_ = Plugin("shop"), asyncio.Event(), asyncio.Event()

    @plugin.on_health()
    async def health() -> dict[str, object]:
        asked.set()
        await open_.wait()
        return {"ok": True, "of": "the old session"}

    @plugin.service("slow")
    async def slow() -> str:
        await asyncio.sleep(1.0)
        return "new"

    bus = await mesh.client()
    await mesh.start(plugin)
    old = asyncio.create_task(mesh.command(plugin, "health"))
    await asked.wait()
    await mesh.restart()
    await asyncio.gather(old, return_exceptions=True)
    new = [asyncio.create_task(bus.call("shop.slow")) for _ in range(8)]
    await mesh.settle()
    open_.set()
    await mesh.settle()
    await mesh.advance(1.0)
    assert await asyncio.gather(*new) == ["new"] * 8


async def test_events_in_hand_at_the_loss_give_no_credit_to_the_next_session(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, gate, handled = await mesh.client(), asyncio.Event(), []

    async def handler(event: Event) -> None:
        await gate.wait()
        handled.append(event.data)

    await bus.subscribe("a.b", handler)
    for _ in range(5):
        await bus.publish("a.b", bytes(200_000))
    await mesh.settle()
    await mesh.restart()
    sent = record_sent(monkeypatch, link_of(mesh, bus))
    gate.set()
    await mesh.settle()
    assert len(handled) == 5
    assert [packet for packet in sent if isinstance(packet, p.Credit)] == []


async def test_a_publisher_waits_while_the_broker_is_away_and_goes_on_afterwards(mesh: Mesh) -> None:
    bus = await mesh.client()
    mesh.broker.stop()
    publishing = asyncio.create_task(bus.publish("a.b", "after all"))
    await mesh.settle()
    assert not publishing.done()
    mesh.broker.start()
    await publishing
    assert bus.is_open


async def test_a_publisher_and_a_caller_are_told_when_the_broker_does_not_come_back(mesh: Mesh) -> None:
    bus = await mesh.client()
    mesh.broker.stop()
    waiting = [asyncio.create_task(bus.publish("a.b")), asyncio.create_task(bus.call("a.b", timeout=3))]
    await mesh.advance(16)
    for task in waiting:
        with pytest.raises(ConnectionLost, match="unavailable: no session with the broker: the broker ended"):
            await task


async def test_the_time_that_a_call_waits_for_the_session_counts(mesh: Mesh) -> None:
    plugin = Plugin("shop")

    @plugin.service("slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    bus = await mesh.client()
    await mesh.start(plugin)
    mesh.broker.stop()
    call = asyncio.create_task(bus.call("shop.slow", timeout=10, wait_ready=10))
    await mesh.advance(6)
    mesh.broker.start()
    await mesh.settle()
    await mesh.advance(3.5)
    assert not call.done()
    await mesh.advance(1)
    with pytest.raises(CallError, match="timeout"):
        await call


async def test_a_frozen_broker_is_given_up_after_three_beats_and_found_again_when_it_goes_on(mesh: Mesh) -> None:
    plugin, handled = Plugin("shop"), []

    @plugin.subscribe("a.b")
    async def on_event(event: Event) -> None:
        handled.append(event.data)

    bus = await mesh.client()
    await mesh.start(plugin)
    mesh.broker.freeze()
    await mesh.advance(14)
    assert bus.is_open
    await mesh.advance(7)
    assert not bus.is_open
    mesh.broker.thaw()
    await asyncio.gather(bus.ready(), plugin.bus.ready())
    await bus.publish("a.b", 1)
    await mesh.settle()
    assert handled == [1]
    # One session each: the one before the freeze has not been left behind.
    assert sorted(session.name for session in mesh.snapshot().sessions) == ["broker", "shop", "test"]


async def test_a_broker_that_freezes_for_a_moment_costs_nothing(mesh: Mesh) -> None:
    bus = await mesh.client()
    session = bus.session
    call = asyncio.create_task(bus.call("nobody.there", timeout=60))
    mesh.broker.freeze()
    await mesh.advance(10)
    mesh.broker.thaw()
    with pytest.raises(CallError, match="unavailable"):
        await call
    assert bus.session == session


async def test_a_process_that_was_frozen_itself_does_not_blame_the_broker(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await mesh.client()
    await mesh.advance(6)  # it has begun to look whether the broker is silent
    sent = record_sent(monkeypatch, link_of(mesh, bus))
    assert mesh._clock is not None
    mesh._clock.move(3600)
    await mesh.advance(12)
    # It would be given the same session again, so its number does not show whether it registered once more.
    assert {type(packet) for packet in sent} == {p.Ping}
    assert bus.is_open


async def test_a_broker_that_does_not_read_makes_publishers_wait_and_loses_nothing(mesh: Mesh) -> None:
    bus, seen = await mesh.client(), []
    await bus.subscribe("a.b", lambda event: seen.append(event.data))
    await mesh.settle()
    mesh.broker.freeze()

    async def publish() -> None:
        for number in range(3000):
            await bus.publish("a.b", [number, "x" * 500])

    publishing = asyncio.create_task(publish())
    await mesh.settle()
    assert not publishing.done()
    mesh.broker.thaw()
    await publishing
    async with asyncio.timeout(5):
        while len(seen) < 3000:
            await mesh.settle()
    assert [number for number, _ in seen] == list(range(3000))


async def test_a_session_that_only_the_broker_has_given_up_is_made_anew(mesh: Mesh) -> None:
    bus = await mesh.client()
    number, link = bus.session, link_of(mesh, bus)
    await mesh.settle()
    assert mesh.broker.router is not None
    mesh.broker.router.peer_lost(link.address, mesh.broker.now)
    await bus.publish("a.b")
    await mesh.settle()
    assert bus.session not in (0, number)


async def test_refusals_of_what_was_sent_before_do_not_end_the_new_session(mesh: Mesh) -> None:
    """A frame that crosses the end of its session is refused right behind the answer to the new REGISTER."""
    bus, handled = await mesh.client(), []
    await bus.subscribe("a.b", lambda event: handled.append(event.data))
    old, link = bus.session, link_of(mesh, bus)
    registers = []

    def cross() -> None:
        registers.append(1)
        link.send(encode_frame(old, [p.Ping(1)]))

    bus._peer.before_register = cross
    await mesh.lose(bus)
    await mesh.settle()
    await bus.publish("a.b", 1)
    await mesh.settle()
    assert (handled, len(registers)) == ([1], 1)


@pytest.mark.parametrize("number", ["the old one", 0, 12345])
async def test_frames_of_another_session_are_ignored(mesh: Mesh, number: int | str) -> None:
    bus, handled = await mesh.client(), []
    subscription = await bus.subscribe("a.b", lambda event: handled.append(event.data))
    old = bus.session
    await mesh.lose(bus)
    event = p.Event([subscription._number], "a.b", Raw(encode_payload(b"\x01")))
    link_of(mesh, bus).arrive(encode_frame(old if isinstance(number, str) else number, [event]))
    link_of(mesh, bus).arrive(encode_frame(bus.session, []))
    await mesh.settle()
    assert handled == []
    link_of(mesh, bus).arrive(encode_frame(bus.session, [event]))
    await mesh.settle()
    assert handled == [1]


async def test_a_key_that_is_not_valid_any_more_ends_the_bus_with_the_reason(mesh: Mesh) -> None:
    bus = await mesh.client()
    events = await bus.subscribe("a.b")
    waiting = asyncio.ensure_future(anext(aiter(events)))
    await mesh.settle()
    mesh.broker.stop()
    mesh.broker.start({"another key": "operator"})
    error = await asyncio.wait_for(asyncio.shield(bus.ended), 5)
    assert isinstance(error, RegistrationError)
    assert error.code == "bad_token"
    assert "attempt 1: bad_token: this token or key is unknown" in error.text
    for attempt in (waiting, bus.publish("a.b"), bus.call("a.b")):
        with pytest.raises(BusError, match="bad_token"):
            await attempt


async def test_the_goodbye_of_a_broker_that_shuts_down_is_followed_by_its_successor(mesh: Mesh) -> None:
    bus = await mesh.client()
    call = asyncio.create_task(bus.call("nobody.there", timeout=50, wait_ready=50))
    await mesh.settle()
    mesh.broker.shut_down()
    with pytest.raises(CallError, match="lost: the broker ended the session: the broker stops"):
        await call
    await mesh.advance(20)
    mesh.broker.start()
    await bus.ready()


async def test_a_subscriber_that_asked_to_be_disconnected_when_slow_is_told(mesh: Mesh) -> None:
    slow, bus, gate = await mesh.client("slow"), await mesh.client(), asyncio.Event()

    async def handler(event: Event) -> None:
        await gate.wait()

    await slow.subscribe("a.b", handler, overflow="disconnect", max_pending=1)
    for _ in range(30):
        await bus.publish("a.b", bytes(200_000))
    error = await asyncio.wait_for(asyncio.shield(slow.ended), 5)
    assert error is not None
    assert error.code == "slow_consumer"


@pytest.mark.parametrize("already_restoring", [False, True])
async def test_what_is_ended_before_it_is_restored_is_no_business_of_the_new_broker(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, already_restoring: bool
) -> None:
    bus = await mesh.start(Plugin("shop"))
    subscription = await bus.subscribe("a.b", print)
    await bus.serve("shop.get", print)
    restore = bus._peer.restore

    async def end_all() -> None:
        await asyncio.gather(subscription.unsubscribe(), bus.withdraw("shop.get"))

    async def at_that_moment() -> None:
        await (asyncio.gather(restore(), end_all()) if already_restoring else end_all())
        await restore()

    monkeypatch.setattr(bus._peer, "restore", at_that_moment)
    sent = record_sent(monkeypatch, link_of(mesh, bus))
    await mesh.restart()
    assert sent
    assert not [each for each in sent if isinstance(each, p.Subscribe | p.Unsubscribe | p.Serve | p.Withdraw)]


async def test_a_subscription_that_is_refused_after_a_restart_ends_with_the_reason(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    bus, handled = await mesh.client(), []
    await bus.subscribe("a.b", lambda event: handled.append(event.data))
    events = await bus.subscribe("a.b", max_pending=60_000)
    waiting = asyncio.ensure_future(anext(aiter(events)))
    await mesh.settle()
    mesh.broker.stop()
    original = mesh.broker._factory

    def stricter(**options: Any) -> Any:
        return original(Limits(backlog_events=1000), **options)

    mesh.broker._factory = stricter
    mesh.broker.start()
    await bus.ready()
    with pytest.raises(CallError, match="max_pending is 60000: use 1 to 1000"):
        await waiting
    assert "the subscription to a.b could not be restored: bad_packet: max_pending" in caplog.text
    await bus.publish("a.b", 1)
    await mesh.settle()
    assert handled == [1]


async def test_life_cycle_commands_are_carried_out_even_when_the_session_ends_meanwhile(mesh: Mesh) -> None:
    gate = asyncio.Event()
    steps: list[str] = []

    class Slow(Plugin):
        async def cleanup(self) -> None:
            await gate.wait()
            steps.append("cleaned up")

    plugin = Slow("slow")
    await mesh.start(plugin)
    cleaning = asyncio.ensure_future(mesh.command(plugin, "cleanup"))
    await mesh.settle()
    await mesh.lose(plugin)
    with pytest.raises(CallError, match="lost"):
        await cleaning
    gate.set()
    await mesh.settle()
    assert steps == ["cleaned up"]


async def test_a_session_that_is_lost_while_it_is_restored_is_restored_once_more(mesh: Mesh) -> None:
    bus, handled = await mesh.client(), []
    for _ in range(3):
        await bus.subscribe("a.b", lambda event: handled.append(event.data))
    for _ in range(5):
        mesh.broker.stop()
        mesh.broker.start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await bus.ready()
    await bus.publish("a.b", 1)
    await mesh.settle()
    assert handled == [1, 1, 1]
    sessions = {session.name: session for session in mesh.snapshot().sessions}
    assert len(sessions["test"].subscriptions) == 3


async def test_a_closed_bus_does_not_come_back(mesh: Mesh) -> None:
    bus = await mesh.client()
    await bus.close()
    mesh.broker.stop()
    mesh.broker.start()
    await mesh.advance(30)
    assert [session.name for session in mesh.snapshot().sessions] == ["broker"]
    assert bus.ended.result() is None


async def test_unsubscribing_and_withdrawing_while_the_session_is_restored_leaves_nothing_in_force(mesh: Mesh) -> None:
    plugin = Plugin("shop")
    plugin.service("get")(lambda: None)
    bus = await mesh.client()
    subscription = await bus.subscribe("a.b")
    await mesh.start(plugin)
    mesh.broker.stop()
    mesh.broker.start()
    async with asyncio.timeout(5):
        while not (bus.is_open and plugin.bus.is_open):  # noqa: ASYNC110 - the very turn counts
            await asyncio.sleep(0)
    await asyncio.gather(subscription.unsubscribe(), plugin.bus.withdraw("shop.get"))
    await mesh.settle()
    sessions = {session.name: session for session in mesh.snapshot().sessions}
    assert (sessions["test"].subscriptions, sessions["shop"].services) == ((), ())


async def test_an_iterator_gives_what_had_arrived_before_it_says_that_the_session_is_over(mesh: Mesh) -> None:
    bus = await mesh.client()
    events = aiter(await bus.subscribe("a.b"))
    await bus.publish("a.b", 1)
    await mesh.settle()
    mesh.broker.stop()
    mesh.broker.start({"another key": "operator"})
    await asyncio.wait_for(asyncio.shield(bus.ended), 5)
    assert (await anext(events)).data == 1
    with pytest.raises(RegistrationError):
        await anext(events)


async def test_a_publisher_that_is_denied_over_and_over_does_not_flood_the_log(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await mesh.client()
    for _ in range(100):
        # Past the check of the SDK itself: what counts is what the broker answers.
        bus._peer.send(p.Publish(0, "$broker.up", Raw(encode_payload(b""))))
    await mesh.settle()
    assert caplog.text.count("the broker refused a packet: denied") == 1
    assert bus._peer.refused == 100


async def test_a_fault_of_the_sessions_own_tasks_ends_it_instead_of_leaving_it_unkept(mesh: Mesh) -> None:
    bus = await mesh.client()

    def broken() -> dict[str, Any]:
        raise ZeroDivisionError

    bus._peer.stats = broken
    await mesh.advance(6)
    error = await asyncio.wait_for(asyncio.shield(bus.ended), 1)
    assert error is not None
    assert "ZeroDivisionError" in error.text


async def test_what_the_end_of_a_session_has_cost_is_counted_and_told(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await mesh.client()
    mesh.broker.freeze()
    link = link_of(mesh, bus)
    for _ in range(1000):
        link.send(b"")
    await bus.publish("a.b", "x" * 1000)
    await mesh.settle()
    mesh.broker.stop()
    assert bus._out.unsent_bytes > 1000
    assert f"{bus._out.unsent_bytes} bytes had not been sent yet when the session ended" in caplog.text
