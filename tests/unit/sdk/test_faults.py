"""What others get wrong: brokers that say odd things, peers that send garbage, sessions lost at a bad moment."""

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from plugin_sdk import Bus, BusError, CallError, Plugin
from plugin_sdk.testing import MemoryBroker, MemoryLink, Mesh
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode_frame, encode_payload
from plugin_sdk.wire.limits import DEFAULT_LIMITS, Limits
from plugin_sdk.wire.session import Side
from tests.unit.sdk.coroutines import until


def say(mesh: Mesh, bus: Bus, *packets: Any) -> None:
    """Let the broker say something to one session."""
    mesh._links[bus].arrive(encode_frame(bus.session, packets))


async def test_a_frame_that_is_none_is_logged_and_harms_nobody(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    bus = await mesh.client()
    mesh._links[bus].arrive(b"\xc1 garbage")
    mesh._links[bus].arrive(encode_frame(bus.session, []))
    await mesh.settle()
    assert "the broker sent an invalid frame: bad_frame" in caplog.text
    with pytest.raises(CallError, match="unavailable"):
        await bus.call("nobody.there")


async def test_a_packet_of_a_later_version_is_answered_and_the_rest_of_its_frame_counts(mesh: Mesh) -> None:
    bus = await mesh.client()
    async with bus.subscribe("a.b") as events:
        event = p.Event([events._number], "a.b", Raw(encode_payload(b"\x07")))
        frame = b"\x93" + encode_frame(bus.session, [])[1:] + b"\x92\x63\x01" + encode_frame(0, [event])[2:]
        mesh._links[bus].arrive(frame)
        assert (await asyncio.wait_for(anext(events), 1)).data == 7
    await mesh.settle()
    (session,) = [each for each in mesh.snapshot().sessions if each.name == "test"]
    assert session.errors == 1


async def test_answers_that_nobody_waits_for_are_ignored(mesh: Mesh) -> None:
    bus = await mesh.client()
    payload = Raw(encode_payload(b""))
    say(mesh, bus, p.Ok(999), p.Reply(999, payload), p.Chunk(999, payload), p.Error(999, "lost", ""), p.Cancel(999))
    say(mesh, bus, p.Credit(999, 5), p.Pong(7), p.Event([999], "a.b", payload))
    await mesh.settle()
    assert bus.is_open
    assert bus.unclaimed == 1


async def test_limits_of_a_broker_that_make_no_sense_are_not_used(mesh: Mesh) -> None:
    bus = await mesh.client()
    peer = bus._peer
    for odd in ("many", -1, None, 1.5):
        peer._session.reset()
        peer._session.said(Side.PEER, p.Register)
        limits = {"event_credit": odd, "frame_bytes": odd, "chunk_credit": odd}
        mesh._links[bus].arrive(encode_frame(77, [p.Registered(1, 77, 5000, 4321, "test", limits)]))
        await until(lambda: peer.number == 77)
        assert (peer.window, peer.chunk_credit) == (4321, DEFAULT_LIMITS.chunk_credit)


async def test_a_request_to_a_service_that_is_not_served_is_answered(mesh: Mesh) -> None:
    plugin = Plugin("shop")
    await mesh.start(plugin)
    assert mesh._bus is not None
    with pytest.raises(CallError, match=r"unavailable: shop does not serve 'shop\.get'"):
        await mesh._bus.call("shop.get", to=plugin.bus.session)


@pytest.mark.parametrize("payload", [b"\x01", b"\x92\x80\xc0", b"\x92\x81\x01\x02\xc4\x00"])
async def test_an_event_with_a_broken_payload_fails_in_its_handler_and_gives_its_credit_back(
    mesh: Mesh, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    bus, handled = await mesh.client(), []
    await bus.subscribe("a.b", lambda event: handled.append(event.data))
    sender = await mesh.client("sender")
    sender._peer.send(p.Publish(0, "a.b", Raw(payload)))
    await sender.publish("a.b", "well")
    await mesh.settle()
    assert handled == ["well"]
    assert "failed on event a.b (malformed): RemoteProtocolError: bad_packet: a payload is" in caplog.text
    assert bus._inlets._owed > 0


async def test_a_request_with_a_broken_payload_is_answered_with_bad_packet(mesh: Mesh) -> None:
    plugin = Plugin("shop")
    plugin.service("get")(lambda: None)
    bus = await mesh.client()
    await mesh.start(plugin)
    ref = bus._peer.calls.next_ref()
    with pytest.raises(CallError, match="bad_packet: a payload is"):
        await bus._peer.calls.ask(p.Call(ref, "shop.get", Raw(b"\x01"), 1000), ref, 1.0)


@pytest.mark.parametrize("how", ["call", "stream"])
async def test_a_reply_that_is_no_msgpack_is_the_fault_of_the_service(mesh: Mesh, how: str) -> None:
    stranger = await mesh.start(Plugin("shop"))
    await stranger.serve("shop.get", lambda: None)
    bus = await mesh.client()
    (service,) = [each for each in stranger.services() if each.name == "shop.get"]
    service._servers.pack = lambda value: Raw(b"\x01" if how == "stream" else encode_payload(b"\xc1"))  # type: ignore[method-assign]
    with pytest.raises(CallError, match=r"bad_packet"):
        await (bus.call("shop.get") if how == "call" else anext(bus.stream("shop.get")))


async def test_a_broker_that_falls_silent_while_the_session_is_restored_is_tried_anew(mesh: Mesh) -> None:
    bus, handled = await mesh.client(), []
    await bus.subscribe("a.b", lambda event: handled.append(event.data))
    mesh.broker.stop()
    mesh.broker.start()
    while not bus.is_open:  # noqa: ASYNC110 - the very turn counts
        await asyncio.sleep(0)
    mesh.broker.freeze()
    await mesh.advance(4)
    assert not bus.is_open
    mesh.broker.thaw()
    await mesh.advance(5)
    await bus.ready()
    await bus.publish("a.b", 1)
    await mesh.settle()
    assert handled == [1]


async def test_a_service_that_is_refused_after_a_restart_is_told_and_the_others_are_restored(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Plugin("shop")
    plugin.service("a")(lambda: "a")
    plugin.service("b")(lambda: "b")
    bus = await mesh.client()
    await mesh.start(plugin)
    mesh.broker.stop()
    original = mesh.broker._factory
    mesh.broker._factory = lambda **options: original(Limits(services=1), **options)
    mesh.broker.start()
    await asyncio.gather(bus.ready(), plugin.bus.ready())
    assert await bus.call("shop.a") == "a"
    assert "the service shop.b could not be restored: limit: this session serves 1 services" in caplog.text


async def test_a_serve_that_is_cancelled_leaves_nothing_behind_at_the_broker(mesh: Mesh) -> None:
    plugin = Plugin("shop")
    await mesh.start(plugin)
    serving = asyncio.create_task(plugin.bus.serve("shop.get", lambda: None))
    await asyncio.sleep(0)
    serving.cancel()
    await mesh.settle()
    (session,) = [each for each in mesh.snapshot().sessions if each.name == "shop"]
    assert session.services == ()


async def test_a_session_that_the_broker_ends_for_a_reason_ends_for_good(mesh: Mesh) -> None:
    bus = await mesh.client()
    assert mesh.broker.router is not None
    mesh.broker.router.close(bus.session, "denied", "the operator does not want you", mesh.broker.now)  # type: ignore[attr-defined]
    await bus.publish("a.b")
    error = await asyncio.wait_for(asyncio.shield(bus.ended), 1)
    assert error is not None
    assert error.text == "the broker ended the session: the operator does not want you"


async def test_a_broker_with_smaller_limits_is_not_sent_more_than_it_takes(mesh: Mesh) -> None:
    original = mesh.broker._factory
    mesh.broker._factory = lambda **options: original(Limits(frame_bytes=65_536, chunk_credit=3), **options)
    mesh.broker.stop()
    mesh.broker.start()
    plugin = Plugin("shop")

    @plugin.service("count")
    async def count(n: int) -> Any:
        for number in range(n):
            yield number

    bus = await mesh.client()
    await mesh.start(plugin)
    with pytest.raises(BusError, match=r"too_large: the data for 'a\.b' has 65008 bytes, the broker takes 64512"):
        await bus.publish("a.b", bytes(65_000))
    assert [piece async for piece in bus.stream("shop.count", 50)] == list(range(50))


async def test_a_link_that_was_cut_before_the_answer_came_is_tried_again(mesh: Mesh, monkeypatch: Any) -> None:
    """The first REGISTER gets lost with its connection; the second one is answered."""
    await mesh.open()
    cuts: list[MemoryLink] = []
    take = MemoryBroker.take

    def cut_first(broker: MemoryBroker, link: MemoryLink, frame: bytes) -> bool:
        if link.origin.transport == "memory" and not cuts:
            cuts.append(link)
            asyncio.get_running_loop().call_soon(broker.cut, link)
            return True
        return take(broker, link, frame)

    monkeypatch.setattr(MemoryBroker, "take", cut_first)
    opening = asyncio.create_task(mesh.client())
    await mesh.advance(3)
    bus = await opening
    assert bus.is_open
    assert len(cuts) == 1
