"""Heartbeats, the next time the router wants to be called, and what it shows of itself."""

import dataclasses

import pytest

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode_frame
from plugin_sdk.wire.limits import FRAME_TARGET, Limits
from tests.core_driver import Mesh, Peer, cost, payload


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(heartbeat=5.0)


def tick_when_due(mesh: Mesh) -> float:
    """Do exactly what a driver does: wait until the router wants to be called; returns how long that took."""
    due = mesh.router.next_deadline()
    assert due is not None
    waited = due - mesh.now
    mesh.advance(waited)
    return waited


def frame_of(publisher: Peer, count: int) -> bytes:
    """A frame of so many numbered events of 300 bytes."""
    return encode_frame(publisher.number, [p.Publish(0, "a", payload(b"%0300d" % number)) for number in range(count)])


def pings(peer: Peer) -> int:
    return len(peer.all_of(p.Ping))


def test_a_router_without_sessions_wants_nothing(mesh: Mesh) -> None:
    assert mesh.router.next_deadline() is None
    mesh.router.tick(mesh.now + 1e6)
    assert mesh.router.next_deadline() is None


def test_a_silent_peer_is_pinged_once_per_heartbeat(mesh: Mesh) -> None:
    peer = mesh.client()
    for _ in range(4):
        assert tick_when_due(mesh) == pytest.approx(5.0)
        assert pings(peer) == 1
    assert peer.is_registered()


def test_a_peer_that_has_spoken_lately_is_not_pinged(mesh: Mesh) -> None:
    talker, listener = mesh.client(), mesh.client()
    for _ in range(4):
        mesh.advance(2.5)
        talker.publish("a")
        mesh.advance(2.5)
    assert pings(talker) == 0
    assert pings(listener) == 4


def test_a_silent_peer_is_not_pinged_again_before_a_heartbeat_has_passed(mesh: Mesh) -> None:
    early = mesh.client()
    mesh.advance(3)
    late = mesh.client()
    mesh.advance(7)
    for _ in range(5):
        mesh.router.tick(mesh.now)
        mesh.deliver()
    assert (pings(early), pings(late)) == (1, 1)


def test_a_peer_of_the_broker_itself_is_not_pinged(mesh: Mesh) -> None:
    local = mesh.local()
    mesh.advance(20)
    assert local.take() == []


def test_garbage_is_no_sign_of_life(mesh: Mesh) -> None:
    peer = mesh.client()
    mesh.advance(4)
    peer.send_raw(b"\xc1")
    peer.take()
    mesh.advance(1)
    assert pings(peer) == 1


def test_nothing_is_left_to_do_after_the_last_peer_has_gone(mesh: Mesh) -> None:
    peer = mesh.client()
    peer.leave()
    tick_when_due(mesh)
    assert mesh.router.next_deadline() is None
    mesh.client()
    assert mesh.router.next_deadline() == mesh.now + 5.0


def test_a_driver_that_calls_only_when_asked_never_spins(mesh: Mesh) -> None:
    peer, server = mesh.client(), mesh.plugin("server")
    server.serve("server.x", concurrency=1)
    for number in range(40):
        peer.call("server.x", timeout=0.5 + number * 0.37, wait_ready_ms=number * 100)
    calls = 0
    while mesh.now < 1030:
        assert tick_when_due(mesh) >= 0
        calls += 1
    assert len(peer.all_of(p.Error)) == 40
    assert calls < 100


def test_a_snapshot_shows_every_session_with_what_it_does(mesh: Mesh) -> None:
    server = mesh.managed("server", "secret", pid=7, version="1.2.3", language="python", sdk="0.1")
    server.subscribe("a.>", "workers", overflow="drop_oldest", max_pending=1)
    server.serve("server.x", concurrency=3)
    client = mesh.client("cli")
    server.spend_credit()
    for number in range(3):
        client.publish("a.b", b"%d" % number)
    client.call("server.x")
    client.publish("a b")
    mesh.advance(2)
    snapshot = mesh.router.snapshot(mesh.now)
    first, second = snapshot.sessions
    assert (first.name, first.role, first.version, first.proof, first.transport) == (
        "server", "plugin", "1.2.3", "managed", "ipc",
    )  # fmt: skip
    assert (first.number, first.pid, first.language, first.sdk) == (server.number, 7, "python", "0.1")
    assert (first.age, first.silent, first.serving, first.waiting_bytes) == (2.0, 2.0, 1, cost(b"2"))
    (subscription,) = first.subscriptions
    assert (subscription.pattern, subscription.group, subscription.overflow) == ("a.>", "workers", "drop_oldest")
    assert (subscription.waiting, subscription.dropped) == (1, 2)
    (service,) = first.services
    assert (service.name, service.outstanding, service.served, service.limit) == ("server.x", 1, 1, 3)
    assert (second.name, second.role, second.proof, second.calls, second.errors) == ("cli", "client", "operator", 1, 1)
    assert second.published >= 3
    assert (snapshot.requests, snapshot.retained) == (1, 0)
    assert snapshot.counters["events_dropped"] == 2


def test_a_snapshot_does_not_change_afterwards(mesh: Mesh) -> None:
    peer = mesh.client()
    peer.send(p.Ping(1, {"busy": 1}))
    before = mesh.router.snapshot(mesh.now)
    copy = dataclasses.asdict(before)
    peer.send(p.Ping(2, {"busy": 2}))
    peer.subscribe("a")
    peer.leave()
    assert dataclasses.asdict(before) == copy


def test_what_was_said_but_not_taken_by_the_transport_shows_as_pending(mesh: Mesh) -> None:
    reader, publisher = mesh.client(), mesh.client()
    reader.subscribe("a")
    mesh.router.receive(publisher.address, frame_of(publisher, 10), mesh.now)
    assert mesh.router.snapshot(mesh.now).sessions[0].pending_bytes >= 10 * 300
    mesh.deliver()
    assert mesh.router.snapshot(mesh.now).sessions[0].pending_bytes == 0
    assert len(reader.events()) == 10


def test_many_events_of_a_turn_travel_in_few_frames_and_one_event_travels_at_once(mesh: Mesh) -> None:
    reader, publisher = mesh.client(), mesh.client()
    reader.subscribe("a")
    before = reader.frames
    publisher.publish("a")
    assert reader.frames == before + 1
    publisher.send(*[p.Publish(0, "a", payload(b"x" * 100))] * 1000)
    assert len(reader.events()) == 1001
    assert reader.frames - before - 1 <= 1000 * cost(b"x" * 100) / FRAME_TARGET + 1


def test_a_frame_that_the_transport_did_not_take_is_sent_again_in_its_place(mesh: Mesh) -> None:
    reader, publisher = mesh.client(), mesh.client()
    reader.subscribe("a")
    outbox = reader.session.outbox
    mesh.router.receive(publisher.address, frame_of(publisher, 300), mesh.now)
    first = outbox.take()
    assert first is not None
    outbox.put_back(first)
    mesh.deliver()
    assert [int(content) for content in reader.bodies()] == list(range(300))


def test_a_frame_to_a_peer_exceeds_the_target_by_one_packet_at_most() -> None:
    mesh = Mesh(Limits(event_credit=8 * 1024 * 1024, publish_credit=8 * 1024 * 1024))
    reader, publisher = mesh.client(), mesh.client()
    reader.subscribe("a")
    mesh.router.receive(publisher.address, frame_of(publisher, 1000), mesh.now)
    outbox, sizes = reader.session.outbox, []
    while (frame := outbox.take()) is not None:
        sizes.append(len(frame))
    assert max(sizes) <= FRAME_TARGET + 500
    assert min(sizes[:-1]) >= FRAME_TARGET * 0.8
