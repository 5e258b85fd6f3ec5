"""Bad frames and packets out of place: a clear answer for who sent them, and nothing lost for anybody else."""

import msgspec
import pytest
from msgspec import Raw

from broker.core.notices import PeerMisbehaved
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode, encode_frame, join_frame
from plugin_sdk.wire.limits import MAX_TEXT_BYTES
from tests.core_driver import Mesh, Peer, payload

GARBAGE = {
    "empty": b"",
    "text": b"GET / HTTP/1.1",
    "a number": b"\x07",
    "an empty array": b"\x90",
    "no session number": b"\x91\xa3abc",
    "a negative session number": b"\x91\xff",
    "half a frame": encode_frame(1, [p.Ping(1)])[:-1],
    "more than a frame": encode_frame(1, [p.Ping(1)]) + b"\x00",
    "a number for a packet": b"\x92\x01\x02",
    "an empty packet": b"\x92\x01\x90",
    "a packet that is too short": b"\x92\x01\x92\x0c\x00",
    "a negative ref": b"\x92\x01\x92\x1b\xff",
    "a kind that is a map": b"\x92\x01\x91\x80",
    "text that is not UTF-8": b"\x92\x01\x93\x0c\x00\xa1\xff",
    "an array that never comes": b"\xdc\x01\xff\x01",
    "nested without end": b"\x92\x01" + b"\x91" * 200_000,
}


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def assert_alive(peer: Peer) -> None:
    peer.send(p.Ping(7))
    assert peer.only(p.Pong).number == 7


@pytest.mark.parametrize("frame", GARBAGE.values(), ids=GARBAGE)
def test_garbage_from_a_stranger_is_refused_and_harms_nobody(mesh: Mesh, frame: bytes) -> None:
    other, stranger = mesh.client(), mesh.connect()
    stranger.send_raw(frame)
    assert stranger.only(p.Refused).code == "bad_frame"
    assert mesh.counters()["garbage"] == 1
    assert_alive(other)
    assert stranger.register().is_registered()


@pytest.mark.parametrize("frame", GARBAGE.values(), ids=GARBAGE)
def test_garbage_from_a_registered_peer_is_answered_and_its_session_survives(mesh: Mesh, frame: bytes) -> None:
    other, peer = mesh.client(), mesh.plugin("hello")
    peer.subscribe("a.>")
    peer.send_raw(frame)
    error = peer.only(p.Error)
    assert (error.ref, error.code) == (0, "bad_frame")
    other.publish("a.b", b"still here")
    assert peer.bodies() == [b"still here"]
    (notice,) = mesh.notices(PeerMisbehaved)
    assert (notice.name, notice.code) == ("hello", "bad_frame")


def test_one_bad_packet_spoils_its_whole_frame_and_no_other(mesh: Mesh) -> None:
    peer, reader = mesh.client(), mesh.client()
    reader.subscribe("a")
    good = encode(p.Publish(0, "a", payload()))
    peer.send_raw(join_frame(encode(peer.number), [good, b"\x91\x0c"], 2))
    assert reader.events() == []
    peer.send_raw(join_frame(encode(peer.number), [good], 1))
    assert len(reader.events()) == 1


def test_a_frame_under_no_session_number_is_refused_as_an_unknown_session(mesh: Mesh) -> None:
    stranger = mesh.connect()
    stranger.send(p.Publish(0, "a", payload()))
    answer = stranger.only(p.Refused)
    assert (answer.code, answer.retry) == ("unknown_session", True)
    assert "register (again)" in answer.text
    assert mesh.counters()["stray"] == 1


def test_a_frame_under_the_session_number_of_another_peer_does_nothing(mesh: Mesh) -> None:
    victim, thief, reader = mesh.plugin("victim"), mesh.client(), mesh.client()
    reader.subscribe("a")
    thief.send(p.Publish(0, "a", payload()), p.Goodbye("done"), number=victim.number)
    assert thief.only(p.Refused).code == "unknown_session"
    assert reader.events() == []
    assert_alive(victim)
    assert_alive(thief)


def test_a_peer_that_takes_the_address_of_one_that_left_must_register_first(mesh: Mesh) -> None:
    old = mesh.plugin("hello")
    number = old.number
    old.vanish()
    old.send(p.Ping(1), number=number)
    assert old.only(p.Refused).code == "unknown_session"


def test_a_register_that_comes_with_other_packets_is_refused(mesh: Mesh) -> None:
    stranger = mesh.connect()
    stranger.send(stranger.hello(), p.Ping(1))
    assert stranger.only(p.Refused).code == "unknown_session"


def test_an_unknown_packet_is_answered_as_unsupported_and_the_rest_of_its_frame_counts(mesh: Mesh) -> None:
    peer = mesh.client()
    unknown = msgspec.msgpack.encode([99, 1, {"new": True}])
    peer.send_raw(join_frame(encode(peer.number), [unknown, encode(p.Ping(3))], 2))
    error, pong = peer.take()
    assert (error.ref, error.code) == (0, "unsupported")
    assert "99" in error.text
    assert pong == p.Pong(3)


def test_elements_that_a_later_version_added_are_ignored(mesh: Mesh) -> None:
    peer = mesh.client()
    later = msgspec.msgpack.encode([10, 1, "a.*", None, {"new": "option"}, "more", 2])
    peer.send_raw(join_frame(encode(peer.number), [later], 1))
    assert peer.only(p.Ok).ref == 1


@pytest.mark.parametrize(
    "packet",
    [
        p.Registered(1, 2, 3, 4, "hello"),
        p.Refused("denied", "no"),
        p.Ok(1),
        p.Event([1], "a", Raw(payload())),
        p.Request(1, "a", Raw(payload()), 100),
    ],
    ids=lambda packet: type(packet).__name__,
)
def test_a_packet_that_only_the_broker_may_send_is_refused(mesh: Mesh, packet: p.Packet) -> None:
    peer, reader = mesh.client(), mesh.client()
    reader.subscribe(">")
    peer.send(packet, p.Ping(1))
    error, pong = peer.take()
    assert (error.ref, error.code) == (0, "bad_packet")
    assert type(packet).__name__ in error.text
    assert pong == p.Pong(1)
    assert reader.take() == []


@pytest.mark.parametrize(
    "packet",
    [
        p.Subscribe(1, "a", None, {"overflow": ["x" * 1000] * 1000}),
        p.Subscribe(1, "a", None, {"max_pending": "x" * 1_000_000}),
        p.Serve(1, "hello.x", {"concurrency": "x" * 1_000_000}),
        p.Call(1, "a", payload(), 1000, {"wait_ready_ms": {"x" * 100_000: ["y"] * 1000}}),
        p.Call(1, "a", payload(), 1000, {"to": "x" * 1_000_000}),
    ],
    ids=lambda packet: type(packet).__name__,
)
def test_an_error_quotes_so_little_of_a_huge_value_that_it_keeps_the_limit_itself(mesh: Mesh, packet: p.Packet) -> None:
    peer = mesh.plugin("hello")
    peer.send(packet)
    error = peer.only(p.Error)
    assert error.ref == 1
    assert len(error.text) < MAX_TEXT_BYTES / 10


def test_an_error_about_no_request_is_counted_and_changes_nothing(mesh: Mesh) -> None:
    peer = mesh.client()
    peer.send(p.Error(0, "unsupported", "what was that?"))
    assert peer.take() == []
    assert peer.session.errors == 1


def test_a_pong_and_a_ping_are_signs_of_life_with_the_figures_of_the_peer(mesh: Mesh) -> None:
    peer = mesh.plugin("hello")
    peer.send(p.Ping(4, {"busy": 2}), p.Pong(0))
    assert peer.only(p.Pong).number == 4
    (view,) = mesh.router.snapshot(mesh.now).sessions
    assert view.stats == {"busy": 2}
