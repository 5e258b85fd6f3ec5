"""What waits for all peers together is bounded: what can be dropped is dropped, then the worst offender has to go."""

from typing import Any

import pytest

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.limits import Limits
from tests.core_driver import Mesh, Peer, cost, payload

UNIT = cost(b"x" * 1000)
ROOM = 40 * UNIT


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(Limits(event_credit=10**6, publish_credit=10**6, total_bytes=ROOM, outbox_bytes=10 * ROOM))


@pytest.fixture
def publisher(mesh: Mesh) -> Peer:
    return mesh.client("publisher")


def slow_reader(mesh: Mesh, pattern: str, **options: Any) -> Peer:
    reader = mesh.client(f"reader-of-{pattern}")
    reader.subscribe(pattern, **options)
    reader.spend_credit()
    return reader


def publish(publisher: Peer, number: int, subject: str) -> None:
    for _ in range(number):
        publisher.publish(subject, b"x" * 1000)


def waiting(mesh: Mesh) -> int:
    return mesh.router.snapshot(mesh.now).waiting_bytes


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_events_that_may_be_dropped_take_three_quarters_of_the_room_at_most(
    mesh: Mesh, publisher: Peer, policy: str
) -> None:
    readers = [slow_reader(mesh, subject, overflow=policy) for subject in ("a", "b")]
    for _ in range(5):
        publish(publisher, 10, "a")
        publish(publisher, 10, "b")
    assert waiting(mesh) == 30 * UNIT
    assert all(reader.is_registered() for reader in readers)
    assert mesh.counters()["events_dropped"] == 70


def test_drop_oldest_keeps_the_newest_when_the_room_is_full_too(mesh: Mesh, publisher: Peer) -> None:
    slow_reader(mesh, "a", overflow="drop_oldest")
    reader = slow_reader(mesh, "b", overflow="drop_oldest")
    publish(publisher, 25, "a")
    for number in range(10):
        publisher.publish("b", b"%04d" % number + b"x" * 996)
    reader.grant(10**6)
    assert [body[:4] for body in reader.bodies()] == [b"%04d" % number for number in range(5, 10)]


def test_a_reader_for_whom_there_is_no_room_gets_nothing_and_it_is_counted(mesh: Mesh, publisher: Peer) -> None:
    slow_reader(mesh, "a", overflow="drop_oldest")
    reader = slow_reader(mesh, "b", overflow="drop_oldest")
    publish(publisher, 30, "a")
    publish(publisher, 3, "b")
    reader.grant(10**6)
    assert reader.take() == []
    (view,) = [each for each in mesh.router.snapshot(mesh.now).sessions if each.number == reader.number]
    assert [each.dropped for each in view.subscriptions] == [3]


def test_when_what_must_not_be_dropped_finds_no_room_the_one_for_whom_most_waits_has_to_go(
    mesh: Mesh, publisher: Peer
) -> None:
    worst, other = slow_reader(mesh, "a"), slow_reader(mesh, "b")
    publish(publisher, 25, "a")
    publish(publisher, 15, "b")
    assert worst.is_registered()
    publish(publisher, 1, "b")
    goodbye = worst.only(p.Goodbye)
    assert goodbye.code == "slow_consumer"
    assert goodbye.text.startswith(f"{25 * UNIT} bytes wait at the broker because of it")
    assert f"room for {ROOM} in all" in goodbye.text
    assert waiting(mesh) == 16 * UNIT
    other.grant(10**6)
    assert len(other.events()) == 16


def test_the_bound_holds_when_one_frame_brings_more_than_all_the_room(mesh: Mesh, publisher: Peer) -> None:
    readers = [slow_reader(mesh, "a") for _ in range(3)]
    publisher.send(*[p.Publish(0, "a", payload(b"x" * 1000))] * 60)
    assert waiting(mesh) <= ROOM
    assert not any(reader.is_registered() for reader in readers)
    assert publisher.is_registered()
    assert publisher.session.outbox.allowance + publisher.session.outbox.consumed == 10**6


def test_the_publishers_of_an_ended_reader_go_on(mesh: Mesh, publisher: Peer) -> None:
    slow_reader(mesh, "a")
    publish(publisher, 41, "a")
    assert publisher.session.outbox.allowance + publisher.session.outbox.consumed == 10**6


def test_requests_that_find_no_room_to_wait_end_with_busy(mesh: Mesh) -> None:
    server, caller = mesh.plugin("server"), mesh.client("caller")
    server.serve("server.x", concurrency=1)
    for _ in range(45):
        caller.call("server.x", b"x" * 1000)
    busy = caller.all_of(p.Error)
    assert {error.code for error in busy} == {"busy"}
    assert "for all peers together" in busy[0].text
    assert waiting(mesh) <= ROOM
    caller.vanish()
    assert waiting(mesh) == 0


def test_the_requests_that_wait_for_a_caller_weigh_as_much_as_events(mesh: Mesh, publisher: Peer) -> None:
    server, caller = mesh.plugin("server"), mesh.client("caller")
    server.serve("server.x", concurrency=1)
    for _ in range(25):
        caller.call("server.x", b"x" * 1000)
    reader = slow_reader(mesh, "a")
    publish(publisher, 20, "a")
    assert caller.only(p.Goodbye).code == "slow_consumer"
    assert reader.is_registered()
    assert waiting(mesh) == 20 * UNIT


def stuck(mesh: Mesh, peer: Peer, number: int) -> None:
    """The transport takes nothing more for a peer, for whom so many bytes wait then."""
    outbox = peer.session.outbox
    mesh.router.dirty.clear()
    outbox.listed = False
    outbox.put_back(b"x" * number)
    mesh.router.hold_back(outbox, mesh.now)
    mesh.deliver()


def test_what_no_transport_takes_counts_and_is_forgotten_once_it_is_taken(mesh: Mesh) -> None:
    peer = mesh.client()
    stuck(mesh, peer, 5000)
    assert waiting(mesh) == 5000
    peer.session.outbox.discard()
    mesh.advance(0.1)
    mesh.advance(0.5)
    assert waiting(mesh) == 0


def test_many_that_do_not_read_replies_are_ended_one_after_the_other(mesh: Mesh) -> None:
    peers = [mesh.client() for _ in range(5)]
    for number, peer in enumerate(peers):
        stuck(mesh, peer, ROOM // 5 + number)
    assert [peer.is_registered() for peer in peers] == [True, True, True, True, False]
    assert waiting(mesh) <= ROOM


def test_a_single_peer_that_reads_nothing_at_all_is_ended_at_the_bound_of_its_outbox(mesh: Mesh) -> None:
    mesh = Mesh(Limits(outbox_bytes=1000))
    peer = mesh.client()
    outbox = peer.session.outbox
    stuck(mesh, peer, 1001)
    assert not peer.is_registered()
    assert not mesh.router.hold_back(outbox, mesh.now), "nothing waits for a session that has ended"
    assert waiting(mesh) == 0


def test_nothing_is_counted_any_more_when_everybody_has_gone(mesh: Mesh, publisher: Peer) -> None:
    readers = [slow_reader(mesh, "a", overflow=each) for each in ("block", "drop_oldest", "drop_newest", "disconnect")]
    publish(publisher, 5, "a")
    stuck(mesh, readers[0], 500)
    for peer in readers:
        peer.vanish()
    assert waiting(mesh) == 0
