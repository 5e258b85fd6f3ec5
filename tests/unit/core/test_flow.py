"""Credit and overflow: a slow subscriber makes events wait, and its policy says what happens then."""

from typing import Any

import pytest

from broker.core.notices import SessionLost
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.limits import Limits
from tests.core_driver import Mesh, Peer, cost, payload

WINDOW = 10_000
UNIT = cost(b"xxxx")


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(Limits(event_credit=WINDOW, publish_credit=WINDOW, backlog_bytes=20 * UNIT, frame_bytes=50_000))


@pytest.fixture
def publisher(mesh: Mesh) -> Peer:
    return mesh.client("publisher")


def slow_reader(mesh: Mesh, pattern: str = "a", **options: Any) -> Peer:
    """A subscriber whose credit is used up."""
    reader = mesh.client("reader")
    reader.subscribe(pattern, **options)
    reader.spend_credit()
    return reader


def publish(publisher: Peer, numbers: range, subject: str = "a") -> None:
    for number in numbers:
        publisher.publish(subject, b"%04d" % number)


def expected(*ranges: range) -> list[bytes]:
    return [b"%04d" % number for numbers in ranges for number in numbers]


def window(publisher: Peer) -> int:
    """What the router still lets this publisher send, and what it would give back with the next packet."""
    outbox = publisher.session.outbox
    return outbox.allowance + outbox.consumed


def dropped(reader: Peer) -> int:
    (view,) = [each for each in reader.mesh.router.snapshot(0.0).sessions if each.number == reader.number]
    return sum(subscription.dropped for subscription in view.subscriptions)


def test_events_take_credit_by_their_bytes_and_a_fixed_overhead(mesh: Mesh, publisher: Peer) -> None:
    reader = mesh.client()
    reader.subscribe("a")
    publish(publisher, range(3))
    assert reader.session.outbox.credit == WINDOW - 3 * UNIT


def test_without_credit_events_wait_and_with_credit_they_come_in_order(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh)
    publish(publisher, range(5))
    assert reader.take() == []
    reader.grant(2 * UNIT)
    assert reader.bodies() == expected(range(2))
    publish(publisher, range(5, 7))
    assert reader.take() == []
    reader.grant(100 * UNIT)
    assert reader.bodies() == expected(range(2, 7))


def test_one_event_may_overdraw_the_credit_and_the_next_waits(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh)
    reader.grant(1)
    publish(publisher, range(2))
    assert reader.bodies() == expected(range(1))
    reader.grant(UNIT - 1)
    assert reader.take() == []
    reader.grant(1)
    assert reader.bodies() == expected(range(1, 2))


def test_a_reader_without_credit_holds_up_no_other_reader(mesh: Mesh, publisher: Peer) -> None:
    slow_reader(mesh)
    quick = mesh.client()
    quick.subscribe("a")
    publish(publisher, range(10))
    assert quick.bodies() == expected(range(10))


def test_replies_and_acknowledgements_pass_without_credit(mesh: Mesh) -> None:
    reader, server = slow_reader(mesh), mesh.plugin("server")
    server.serve("server.x")
    reader.call("server.x")
    server.reply(server.requests()[0], b"answer")
    assert isinstance(reader.only(p.Reply), p.Reply)
    reader.subscribe("b")


def test_a_publisher_gets_its_credit_back_in_pieces_of_a_quarter_window(mesh: Mesh, publisher: Peer) -> None:
    sent = 0
    while not publisher.inbox:
        publish(publisher, range(1))
        sent += UNIT
    assert publisher.only(p.Credit) == p.Credit(0, sent)
    assert WINDOW / 4 <= sent < WINDOW / 4 + UNIT
    assert publisher.session.outbox.allowance == WINDOW


def test_under_block_credit_is_withheld_from_half_of_the_readers_window_on(mesh: Mesh, publisher: Peer) -> None:
    mesh.client("reader").subscribe("a")
    unnoticed = WINDOW // 2 // UNIT
    publish(publisher, range(unnoticed))
    assert window(publisher) == WINDOW
    publish(publisher, range(unnoticed, unnoticed + 11))
    assert window(publisher) == WINDOW - 11 * UNIT


def test_withheld_credit_comes_back_when_the_reader_has_caught_up_and_nothing_was_lost(
    mesh: Mesh, publisher: Peer
) -> None:
    reader = slow_reader(mesh)
    publish(publisher, range(100))
    assert publisher.session.outbox.allowance < WINDOW / 2
    publisher.take()
    reader.grant(100 * UNIT + WINDOW // 2 - 1)
    assert publisher.all_of(p.Credit) == []
    reader.grant(1)
    assert sum(packet.amount for packet in publisher.all_of(p.Credit)) > WINDOW / 4
    assert window(publisher) == WINDOW
    assert reader.bodies() == expected(range(100))


def test_a_bound_of_a_few_events_means_nothing_under_block(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh, max_pending=1)
    publish(publisher, range(4))
    assert window(publisher) == WINDOW - 4 * UNIT
    reader.grant(4 * UNIT + WINDOW // 2)
    assert window(publisher) == WINDOW
    assert reader.bodies() == expected(range(4))


def test_an_event_withheld_for_two_readers_is_paid_back_after_both_and_only_once(mesh: Mesh, publisher: Peer) -> None:
    first, second = slow_reader(mesh), slow_reader(mesh)
    publish(publisher, range(1))
    first.grant(UNIT + WINDOW // 2)
    assert window(publisher) == WINDOW - UNIT
    second.grant(UNIT + WINDOW // 2)
    assert window(publisher) == WINDOW


def test_credit_for_one_reader_does_not_wait_for_another(mesh: Mesh, publisher: Peer) -> None:
    first, second = slow_reader(mesh, "a.*"), slow_reader(mesh, "a.b")
    publish(publisher, range(1), "a.b")
    publish(publisher, range(1, 2), "a.c")
    first.grant(WINDOW)
    assert window(publisher) == WINDOW - UNIT
    second.grant(WINDOW)
    assert window(publisher) == WINDOW


def test_withheld_credit_comes_back_when_the_subscriber_is_lost(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh)
    publish(publisher, range(60))
    publisher.take()
    reader.vanish()
    assert window(publisher) == WINDOW
    assert len(publisher.all_of(p.Credit)) == 1
    # What waited for the lost reader is counted.
    assert mesh.counters()["events_dropped"] == 60


def test_withheld_credit_comes_back_when_the_subscription_ends_and_what_waits_is_still_sent(
    mesh: Mesh, publisher: Peer
) -> None:
    reader = mesh.client()
    subscription = reader.subscribe("a")
    reader.spend_credit()
    publish(publisher, range(60))
    publisher.take()
    reader.unsubscribe(subscription)
    assert window(publisher) == WINDOW
    assert len(publisher.all_of(p.Credit)) == 1
    publish(publisher, range(60, 70))
    reader.grant(100 * UNIT)
    assert reader.bodies() == expected(range(60))


def test_credit_stays_withheld_while_another_subscription_waits_in_the_same_lane(mesh: Mesh, publisher: Peer) -> None:
    reader = mesh.client()
    first, second = reader.subscribe("a"), reader.subscribe("b")
    reader.spend_credit()
    publish(publisher, range(30))
    reader.unsubscribe(first)
    assert window(publisher) < WINDOW
    reader.unsubscribe(second)
    assert window(publisher) == WINDOW


def test_a_publisher_that_died_is_not_paid(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh)
    publish(publisher, range(15))
    publisher.vanish()
    publisher.take()
    reader.grant(100 * UNIT)
    assert publisher.take() == []
    assert reader.bodies() == expected(range(15))


def test_one_event_larger_than_the_window_passes(mesh: Mesh, publisher: Peer) -> None:
    reader = mesh.client()
    reader.subscribe("a")
    publisher.publish("a", b"x" * 40_000)
    assert len(reader.events()) == 1
    reader.grant(cost(b"x" * 40_000))
    assert publisher.only(p.Credit).amount == cost(b"x" * 40_000)


def test_a_publisher_that_ignores_its_credit_is_closed(mesh: Mesh, publisher: Peer) -> None:
    slow_reader(mesh)
    for _ in range(100):
        publisher.publish("a", b"x" * 1000)
    goodbye = publisher.all_of(p.Goodbye)[0]
    assert goodbye == p.Goodbye("slow_consumer", "it does not keep to its credit")
    assert not publisher.is_registered()


def test_drop_oldest_keeps_the_newest_and_counts(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh, overflow="drop_oldest", max_pending=5)
    publish(publisher, range(12))
    assert dropped(reader) == 7
    assert window(publisher) == WINDOW
    reader.grant(100 * UNIT)
    assert reader.bodies() == expected(range(7, 12))
    assert mesh.counters()["events_dropped"] == 7


def test_drop_newest_keeps_the_oldest_and_counts(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh, overflow="drop_newest", max_pending=5)
    publish(publisher, range(12))
    assert dropped(reader) == 7
    assert window(publisher) == WINDOW
    reader.grant(100 * UNIT)
    assert reader.bodies() == expected(range(5))
    assert mesh.counters()["events_dropped"] == 7


def test_the_bytes_of_a_lane_are_bounded_too(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh, overflow="drop_oldest")
    publish(publisher, range(50))
    reader.grant(100 * UNIT)
    assert reader.bodies() == expected(range(30, 50))


def test_a_drop_for_several_subscriptions_is_counted_for_each_of_them(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh, overflow="drop_newest", max_pending=1)
    reader.subscribe("*", overflow="drop_newest", max_pending=1)
    publish(publisher, range(3))
    assert dropped(reader) == 4
    assert mesh.counters()["events_dropped"] == 2


def test_disconnect_ends_the_session_and_counts_every_event_that_it_did_not_get(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh, overflow="disconnect", max_pending=5)
    publish(publisher, range(5))
    assert reader.is_registered()
    publisher.send(*[p.Publish(0, "a", payload(b"%04d" % number)) for number in range(5, 8)])
    assert reader.only(p.Goodbye) == p.Goodbye("slow_consumer", "it does not read its events")
    assert not reader.is_registered()
    (lost,) = mesh.notices(SessionLost)
    assert (lost.name, lost.code) == ("reader", "slow_consumer")
    assert mesh.counters()["events_dropped"] == 8
    assert window(publisher) == WINDOW


def test_a_reader_is_told_that_it_did_not_read_even_when_it_has_published_much(mesh: Mesh, publisher: Peer) -> None:
    slow_reader(mesh, "b", max_pending=1)
    reader = slow_reader(mesh, overflow="disconnect", max_pending=1)
    reader.publish("b", b"x" * 40_000)
    publish(publisher, range(2))
    assert reader.only(p.Goodbye).text == "it does not read its events"


@pytest.mark.parametrize("credit", [0, 1, 5 * UNIT, 15 * UNIT, 100 * UNIT])
@pytest.mark.parametrize("lanes", [1, 2])
def test_events_in_one_frame_are_treated_as_events_in_frames_of_their_own(mesh: Mesh, lanes: int, credit: int) -> None:
    outcomes = []
    for together in (True, False):
        reader, publisher, subject = mesh.client(), mesh.client(), f"one.{together}"
        for bound in range(1, lanes + 1):
            reader.subscribe(subject, max_pending=1000 * bound)
        publish(publisher, range(1), subject)
        reader.take()
        reader.spend_credit(credit)
        events = [p.Publish(0, subject, payload(b"%04d" % number)) for number in range(10)]
        for frame in [events] if together else [[event] for event in events]:
            publisher.send(*frame)
        outcomes.append((len(reader.take()), reader.session.outbox.credit, window(publisher)))
    assert outcomes[0] == outcomes[1]


def test_lanes_with_different_policies_fill_independently_and_keep_the_order_between_them(
    mesh: Mesh, publisher: Peer
) -> None:
    reader = slow_reader(mesh, "a", overflow="drop_oldest", max_pending=3)
    reader.subscribe("b")
    for number in range(8):
        publish(publisher, range(number, number + 1), "ab"[number % 2])
    reader.grant(100 * UNIT)
    assert reader.bodies() == expected(range(1, 2), range(2, 8))


def test_a_flood_on_one_lane_does_not_starve_another(mesh: Mesh, publisher: Peer) -> None:
    reader = slow_reader(mesh, "flood", overflow="drop_oldest", max_pending=10)
    reader.subscribe("rare")
    publish(publisher, range(1), "rare")
    for _ in range(30):
        publish(publisher, range(10), "flood")
        reader.grant(UNIT)
    assert "rare" in [subject for _, subject, _ in reader.events()]


def test_a_reader_cannot_switch_flow_control_off_by_claiming_endless_credit(mesh: Mesh) -> None:
    reader = mesh.client()
    for _ in range(3):
        reader.grant(2**63 - 1)
    assert reader.session.outbox.credit == 4 * WINDOW


def test_last_values_wait_for_credit_like_other_events(mesh: Mesh, publisher: Peer) -> None:
    for number in range(5):
        publisher.publish(f"v.{number}", b"%04d" % number, retain=True)
    reader = slow_reader(mesh)
    reader.subscribe("v.*", last=True)
    assert reader.take() == []
    reader.grant(100 * UNIT)
    assert reader.bodies() == expected(range(5))


def test_asking_for_last_values_again_and_again_without_reading_is_refused_at_the_bound(
    mesh: Mesh, publisher: Peer
) -> None:
    for number in range(30):
        publisher.publish(f"v.{number}", b"%04d" % number, retain=True)
    reader = slow_reader(mesh)
    reader.subscribe("v.*", last=True)
    reader.send(p.Subscribe(90, "v.*", None, {"last": True}))
    error = reader.only(p.Error)
    assert (error.ref, error.code) == (90, "limit")
    reader.grant(100 * UNIT)
    assert reader.bodies() == expected(range(30))
    reader.subscribe("v.*", last=True)


def test_an_event_that_waits_keeps_itself_in_memory_and_not_the_frame_it_came_in(mesh: Mesh, publisher: Peer) -> None:
    readers = [slow_reader(mesh), slow_reader(mesh)]
    publisher.send(p.Publish(0, "a", payload(b"small")), p.Publish(0, "nobody", payload(b"x" * 30_000)))
    held = [lane.waiting[0].payload for reader in readers for lane in reader.session.lanes.values()]
    assert [type(each) for each in held] == [bytes, bytes]
    assert held[0] is held[1]


def test_publishers_that_come_and_go_cannot_fill_the_memory_behind_a_reader_that_never_reads(mesh: Mesh) -> None:
    reader = slow_reader(mesh)
    waiting = []
    for _ in range(100):
        publisher = mesh.client()
        publisher.send(*[p.Publish(0, "a", payload(b"xxxx"))] * 10)
        publisher.leave()
        if not reader.is_registered():
            break
        waiting.append(sum(lane.size for lane in reader.session.lanes.values()))
    assert reader.only(p.Goodbye).code == "slow_consumer"
    assert max(waiting) < 3 * mesh.router.limits.backlog_bytes


@pytest.mark.parametrize("orderly", [True, False])
def test_a_reader_behind_which_too_much_waits_for_nobody_is_ended_with_the_last_publisher(
    mesh: Mesh, orderly: bool
) -> None:
    reader, publisher = slow_reader(mesh), mesh.client()
    publish(publisher, range(100))
    assert reader.is_registered()
    if orderly:
        publisher.leave()
    else:
        publisher.vanish()
    assert reader.only(p.Goodbye).code == "slow_consumer"


def test_a_reader_that_reads_slowly_keeps_its_session_however_many_publishers_come_and_go(mesh: Mesh) -> None:
    reader = mesh.client()
    reader.subscribe("a")
    reader.spend_credit(left=10 * UNIT)
    for start in range(0, 1000, 10):
        publisher = mesh.client()
        publish(publisher, range(start, start + 10))
        publisher.leave()
        reader.grant(10 * UNIT)
    assert reader.bodies() == expected(range(1000))


def test_what_publishers_that_left_had_sent_is_forgotten_once_it_is_read(mesh: Mesh) -> None:
    reader, stayer = slow_reader(mesh), mesh.client()
    for _ in range(10):
        leaver = mesh.client()
        publish(leaver, range(15))
        leaver.leave()
        reader.grant(15 * UNIT)
        assert len(reader.events()) == 15
    publish(stayer, range(60))
    leaver = mesh.client()
    publish(leaver, range(10))
    leaver.leave()
    assert reader.is_registered()


def test_publishers_that_wait_do_not_cost_a_blocked_reader_its_session(mesh: Mesh) -> None:
    reader = slow_reader(mesh)
    publishers = [mesh.client() for _ in range(20)]
    for publisher in publishers:
        publish(publisher, range(100))
    assert reader.is_registered()
    reader.grant(4 * WINDOW)
    while len(reader.inbox) < 2000:
        reader.grant(4 * WINDOW)
    assert all(window(publisher) == WINDOW for publisher in publishers)


def test_a_session_has_a_bounded_number_of_lanes_and_they_end_with_their_subscriptions(mesh: Mesh) -> None:
    reader = mesh.client()
    for bound in range(1, 100):
        reader.unsubscribe(reader.subscribe("a", max_pending=bound))
    assert not reader.session.lanes
    for bound in range(1, 17):
        reader.subscribe("a", max_pending=bound)
    reader.send(p.Subscribe(500, "a", None, {"max_pending": 17}))
    error = reader.only(p.Error)
    assert (error.ref, error.code) == (500, "limit")


def test_subscribing_and_ending_again_and_again_without_reading_is_refused_at_the_bound(mesh: Mesh) -> None:
    reader = mesh.client()
    for _ in range(100):
        reader.send(p.Subscribe(1, "a"))
        answer = reader.take()[0]
        if isinstance(answer, p.Error):
            break
        reader.spend_credit()
        publisher = mesh.client()
        publish(publisher, range(20))
        reader.unsubscribe(1)
    assert answer.code == "limit"
    assert "read them, then subscribe" in answer.text
    reader.grant(4 * WINDOW)
    assert len(reader.bodies()) <= 60
    reader.subscribe("a")


def test_the_lane_of_an_ended_subscription_goes_when_it_is_empty(mesh: Mesh, publisher: Peer) -> None:
    reader = mesh.client()
    subscription = reader.subscribe("a")
    reader.spend_credit()
    publish(publisher, range(3))
    reader.unsubscribe(subscription)
    assert len(reader.session.lanes) == 1
    reader.grant(100 * UNIT)
    assert not reader.session.lanes
