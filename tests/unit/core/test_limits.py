"""Every bound is reached on purpose: up to it everything works, beyond it is a clear error, and it frees again."""

import pytest

from broker.core.events import TARGETS_PER_SUBJECT
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode_frame
from plugin_sdk.wire.limits import DEFAULT_LIMITS, Limits
from tests.core_driver import Mesh, Peer, payload


def refusal(peer: Peer, packet: p.Packet) -> p.Error:
    peer.send(packet)
    return peer.only(p.Error)


def padded_frame(number: int, size: int) -> bytes:
    """A frame of exactly this many bytes."""
    empty = encode_frame(number, [p.Publish(0, "a", payload(b"x" * 70_000))])
    return encode_frame(number, [p.Publish(0, "a", payload(b"x" * (size - len(empty) + 70_000)))])


def test_a_frame_of_the_largest_size_is_taken_and_one_byte_more_is_not() -> None:
    mesh = Mesh(Limits(frame_bytes=200_000))
    peer, reader = mesh.client(), mesh.client()
    reader.subscribe("a")
    peer.send_raw(padded_frame(peer.number, 200_000))
    assert len(reader.events()) == 1
    peer.take()
    peer.send_raw(padded_frame(peer.number, 200_001))
    error = peer.only(p.Error)
    assert (error.ref, error.code, error.text) == (0, "too_large", "frame of 200001 bytes, the limit is 200000")
    assert reader.events() == []
    assert peer.is_registered()


def test_a_stranger_with_a_frame_too_large_is_refused() -> None:
    mesh = Mesh(Limits(frame_bytes=200_000))
    stranger = mesh.connect()
    stranger.send_raw(padded_frame(0, 200_001))
    assert stranger.only(p.Refused).code == "too_large"


def test_a_frame_of_the_most_packets_is_taken_and_one_more_is_not() -> None:
    mesh = Mesh(Limits(packets_per_frame=100))
    peer = mesh.client()
    peer.send(*[p.Ping(1)] * 100)
    assert len(peer.all_of(p.Pong)) == 100
    error_text = "101 packets in a frame, the limit is 100"
    peer.send(*[p.Ping(1)] * 101)
    error = peer.only(p.Error)
    assert (error.ref, error.code, error.text) == (0, "limit", error_text)


def test_a_session_has_so_many_subscriptions_and_no_more() -> None:
    mesh = Mesh(Limits(subscriptions=3))
    peer, other = mesh.client(), mesh.client()
    ids = [peer.subscribe(f"a.{number}") for number in range(3)]
    error = refusal(peer, p.Subscribe(99, "a.x"))
    assert (error.ref, error.code) == (99, "limit")
    other.subscribe("a.x")
    peer.unsubscribe(ids[0])
    peer.subscribe("a.x")


def test_a_session_has_so_many_services_and_no_more() -> None:
    mesh = Mesh(Limits(services=3))
    peer = mesh.plugin("server")
    for number in range(3):
        peer.serve(f"server.{number}")
    error = refusal(peer, p.Serve(99, "server.x"))
    assert (error.ref, error.code) == (99, "limit")
    peer.withdraw("server.0")
    peer.serve("server.x")


def test_a_session_has_so_many_requests_pending_and_no_more() -> None:
    mesh = Mesh(Limits(pending_requests=3))
    peer, other, server = mesh.client(), mesh.client(), mesh.plugin("server")
    server.serve("server.x", concurrency=100)
    for _ in range(3):
        peer.call("server.x")
    error = refusal(peer, p.Call(99, "server.x", payload(), 1000))
    assert (error.ref, error.code) == (99, "limit")
    other.call("server.x")
    server.reply(server.requests()[0])
    peer.take()
    peer.call("server.x")
    assert peer.take() == []


def test_an_instance_without_a_limit_of_its_own_takes_as_many_as_one_session_may_have() -> None:
    mesh = Mesh(Limits(pending_requests=3))
    peers, server = [mesh.client(), mesh.client()], mesh.plugin("server")
    server.serve("server.x")
    for peer in peers:
        peer.call("server.x")
        peer.call("server.x")
    assert len(server.requests()) == 3


def test_the_longest_timeout_is_a_day() -> None:
    mesh = Mesh()
    peer, server = mesh.client(), mesh.plugin("server")
    server.serve("server.x")
    peer.call("server.x", timeout=DEFAULT_LIMITS.timeout_ms / 1000)
    assert server.requests()[0].timeout_ms == 24 * 3600 * 1000


def test_routes_to_many_subscriptions_are_remembered_for_fewer_subjects() -> None:
    mesh = Mesh(Limits(cached_subjects=10))
    readers, publisher = [mesh.client() for _ in range(20)], mesh.client()
    for reader in readers:
        reader.subscribe("a.*")
    for number in range(30):
        publisher.publish(f"a.{number}")
    remembered = mesh.router.events._routes.values()
    assert sum(len(route.targets) for route in remembered) <= 10 * TARGETS_PER_SUBJECT
    assert all(len(reader.events()) == 30 for reader in readers)


def test_the_routes_remembered_are_bounded_and_forgetting_them_loses_nothing() -> None:
    mesh = Mesh(Limits(cached_subjects=10))
    reader, publisher = mesh.client(), mesh.client()
    reader.subscribe("n.*")
    for number in range(95):
        publisher.publish(f"n.{number}")
        assert len(mesh.router.events._routes) <= 10
    assert [subject for _, subject, _ in reader.events()] == [f"n.{number}" for number in range(95)]


def test_the_turns_of_groups_that_ended_are_bounded_too() -> None:
    mesh = Mesh(Limits(cached_subjects=10))
    reader, publisher = mesh.client(), mesh.client()
    for number in range(50):
        subscription = reader.subscribe("a", f"g{number}")
        publisher.publish("a")
        reader.unsubscribe(subscription)
    assert len(mesh.router.events._turns) <= 11


@pytest.mark.parametrize("limit", ["backlog_events", "backlog_bytes"])
def test_what_waits_is_bounded_by_the_limits_of_the_broker_too(limit: str) -> None:
    mesh = Mesh(Limits(**{limit: 5 if limit == "backlog_events" else 5 * 69}))
    reader, publisher = mesh.client(), mesh.client()
    reader.subscribe("a", overflow="drop_newest")
    reader.spend_credit()
    for _ in range(8):
        publisher.publish("a", b"1")
    reader.grant(10_000)
    assert len(reader.events()) == 5
