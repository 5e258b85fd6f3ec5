"""Slow consumers are named, counted and told of once; one that merely sets the pace is not one of them."""

from typing import Any

import pytest

from broker.core.notices import SlowConsumer
from broker.core.slow import CALM_SECS, LOOK_SECS, SLOW_SECS, TOLD_PER_LOOK
from broker.core.snapshot import SlowView
from plugin_sdk.wire.limits import Limits
from tests.core_driver import Mesh, Peer, cost

WINDOW = 10_000
UNIT = cost(b"xxxx")


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(Limits(event_credit=WINDOW, publish_credit=WINDOW, backlog_bytes=20 * UNIT))


@pytest.fixture
def publisher(mesh: Mesh) -> Peer:
    return mesh.client("publisher")


def slow_reader(mesh: Mesh, pattern: str = "a", name: str = "reader", **options: Any) -> Peer:
    reader = mesh.client(name)
    reader.subscribe(pattern, **options)
    reader.spend_credit()
    return reader


def publish(publisher: Peer, number: int, subject: str = "a") -> None:
    for _ in range(number):
        publisher.publish(subject, b"xxxx")


def pass_time(mesh: Mesh, seconds: float) -> list[tuple[str, str]]:
    """Let time pass as the edge does; returns what was told of whom."""
    end = mesh.now + seconds
    while mesh.now < end:
        mesh.advance(min(LOOK_SECS / 2, end - mesh.now))
    return [(notice.consumer.name, notice.state) for notice in mesh.notices(SlowConsumer)]


def slow(mesh: Mesh) -> tuple[SlowView, ...]:
    return mesh.router.snapshot(mesh.now).slow


def test_a_reader_that_does_not_read_is_told_of_once_and_once_more_when_it_has_caught_up(
    mesh: Mesh, publisher: Peer
) -> None:
    reader = slow_reader(mesh)
    publish(publisher, 5)
    assert pass_time(mesh, SLOW_SECS / 2) == []
    assert pass_time(mesh, 2 * SLOW_SECS) == [("reader", "slow")]
    reader.grant(100 * UNIT)
    assert pass_time(mesh, CALM_SECS / 2) == []
    assert pass_time(mesh, 2 * CALM_SECS) == [("reader", "recovered")]
    assert mesh.counters()["slow_consumers"] == 1
    assert slow(mesh) == ()


def test_the_snapshot_names_the_reader_what_waits_for_it_and_whom_it_holds_up(mesh: Mesh, publisher: Peer) -> None:
    reader, other = slow_reader(mesh), mesh.client("other")
    publish(publisher, 5)
    publish(other, 2)
    pass_time(mesh, 3 * SLOW_SECS)
    (view,) = slow(mesh)
    assert (view.session, view.name, view.role, view.patterns) == (reader.number, "reader", "client", ("a",))
    assert (view.overflow, view.waiting, view.waiting_bytes, view.dropped) == ("block", 7, 7 * UNIT, 0)
    assert view.publishers == ("publisher", "other")
    assert view.unread_bytes == WINDOW
    assert view.secs == pytest.approx(3 * SLOW_SECS, abs=2 * LOOK_SECS)


def test_a_reader_whose_events_are_dropped_is_told_of_at_once(mesh: Mesh, publisher: Peer) -> None:
    slow_reader(mesh, overflow="drop_oldest", max_pending=3)
    publish(publisher, 8)
    assert pass_time(mesh, 2 * LOOK_SECS) == [("reader", "slow")]
    (view,) = slow(mesh)
    assert (view.overflow, view.max_pending, view.waiting, view.dropped) == ("drop_oldest", 3, 3, 5)
    assert view.publishers == ()


def test_a_reader_that_only_sets_the_pace_is_not_told_of(mesh: Mesh, publisher: Peer) -> None:
    reader = mesh.client("reader")
    reader.subscribe("a")
    for _ in range(100):
        publish(publisher, WINDOW // UNIT)
        assert pass_time(mesh, LOOK_SECS / 4) == []
        reader.grant(WINDOW // UNIT * UNIT)
    assert pass_time(mesh, 2 * SLOW_SECS) == []


def test_a_slow_subscription_that_ends_is_over_before_the_next_one_of_its_kind_is_slow(
    mesh: Mesh, publisher: Peer
) -> None:
    reader = mesh.client("reader")
    first = reader.subscribe("a", overflow="drop_newest", max_pending=1)
    reader.spend_credit()
    publish(publisher, 3)
    assert pass_time(mesh, 2 * LOOK_SECS) == [("reader", "slow")]
    reader.grant(10 * UNIT)
    reader.unsubscribe(first)
    reader.subscribe("a", overflow="drop_newest", max_pending=1)
    reader.spend_credit()
    publish(publisher, 3)
    assert pass_time(mesh, 2 * LOOK_SECS) == [("reader", "recovered"), ("reader", "slow")]
    assert len(slow(mesh)) == 1


def test_a_slow_reader_that_leaves_is_told_of_as_gone(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh)
    publish(publisher, 5)
    pass_time(mesh, 2 * SLOW_SECS)
    reader.vanish()
    assert pass_time(mesh, 2 * LOOK_SECS) == [("reader", "gone")]
    assert slow(mesh) == ()


def test_readers_that_were_slow_before_they_were_told_of_leave_without_a_word(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh)
    publish(publisher, 5)
    pass_time(mesh, SLOW_SECS / 2)
    reader.vanish()
    assert pass_time(mesh, 2 * SLOW_SECS) == []


def test_a_reader_that_is_slow_again_and_again_is_told_of_at_the_pace_of_the_looks(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh, overflow="drop_newest", max_pending=1)
    told = []
    for _ in range(100):
        publish(publisher, 3)
        told += pass_time(mesh, LOOK_SECS)
        reader.grant(UNIT)
        reader.spend_credit()
    assert told == [("reader", "slow")]


def test_many_that_are_slow_at_once_are_told_of_one_after_the_other(mesh: Mesh, publisher: Peer) -> None:
    for number in range(4 * TOLD_PER_LOOK):
        slow_reader(mesh, name=f"reader-{number}")
    publish(publisher, 1)
    told = pass_time(mesh, SLOW_SECS + 2 * LOOK_SECS)
    assert TOLD_PER_LOOK <= len(told) < 4 * TOLD_PER_LOOK
    told += pass_time(mesh, 5 * LOOK_SECS)
    assert len(set(told)) == len(told) == 4 * TOLD_PER_LOOK


def test_nobody_is_looked_for_while_everybody_keeps_up(mesh: Mesh, publisher: Peer) -> None:
    reader = mesh.client("reader")
    reader.subscribe("a")
    publish(publisher, 3)
    mesh.router.tick(mesh.now)
    assert mesh.router.next_deadline() == pytest.approx(mesh.now + mesh.router.heartbeat)
