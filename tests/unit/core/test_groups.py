"""Queue groups: each event to exactly one member, spread evenly, and to one that can take it."""

from collections import Counter

import pytest

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.limits import Limits
from tests.core_driver import Mesh, Peer, cost


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def members(mesh: Mesh, count: int, pattern: str = "job.>", group: str = "workers") -> list[Peer]:
    workers = [mesh.client(f"worker{number}") for number in range(count)]
    for worker in workers:
        worker.subscribe(pattern, group)
    return workers


def shares(workers: list[Peer]) -> list[int]:
    return [len(worker.events()) for worker in workers]


def test_each_event_reaches_exactly_one_member(mesh: Mesh) -> None:
    workers, publisher = members(mesh, 3), mesh.client()
    for number in range(30):
        publisher.publish("job.a", b"%d" % number)
    got = [content for worker in workers for content in worker.bodies()]
    assert sorted(got, key=int) == [b"%d" % number for number in range(30)]


def test_events_of_one_subject_take_turns(mesh: Mesh) -> None:
    workers, publisher = members(mesh, 3), mesh.client()
    for _ in range(30):
        publisher.publish("job.a")
    assert shares(workers) == [10, 10, 10]


def test_many_subjects_with_one_event_each_take_turns_too(mesh: Mesh) -> None:
    workers, publisher = members(mesh, 4), mesh.client()
    for number in range(1000):
        publisher.publish(f"job.{number}")
    assert shares(workers) == [250, 250, 250, 250]


def test_the_turn_survives_subscriptions_that_come_and_go(mesh: Mesh) -> None:
    workers, publisher, busy = members(mesh, 4), mesh.client(), mesh.client()
    for _ in range(100):
        publisher.publish("job.a")
        busy.unsubscribe(busy.subscribe("something.else"))
    assert shares(workers) == [25, 25, 25, 25]


def test_every_group_gets_the_event_and_so_does_everybody_without_a_group(mesh: Mesh) -> None:
    first, second = members(mesh, 2, group="first"), members(mesh, 2, group="second")
    plain, publisher = mesh.client(), mesh.client()
    plain.subscribe("job.*")
    publisher.publish("job.a")
    assert sum(shares(first)) == sum(shares(second)) == 1
    assert len(plain.events()) == 1


def test_members_with_different_patterns_are_one_group_where_both_cover_the_subject(mesh: Mesh) -> None:
    (wide,), (narrow,) = members(mesh, 1, "job.>"), members(mesh, 1, "job.a")
    publisher = mesh.client()
    for subject in ("job.a", "job.a", "job.b", "job.b"):
        publisher.publish(subject)
    got = Counter(subject for worker in (wide, narrow) for _, subject, _ in worker.events())
    assert got == {"job.a": 2, "job.b": 2}


def test_two_subscriptions_of_one_session_are_two_members(mesh: Mesh) -> None:
    double, single, publisher = mesh.client(), mesh.client(), mesh.client()
    ids = {double.subscribe("job.a", "workers"), double.subscribe("job.*", "workers")}
    single.subscribe("job.a", "workers")
    for _ in range(30):
        publisher.publish("job.a")
    events = double.events()
    assert {tuple(subscriptions) for subscriptions, _, _ in events} == {(each,) for each in ids}
    assert (len(events), len(single.events())) == (20, 10)


def test_a_member_in_a_group_and_outside_it_gets_an_event_for_each_role(mesh: Mesh) -> None:
    worker, publisher = mesh.client(), mesh.client()
    plain, grouped = worker.subscribe("job.a"), worker.subscribe("job.a", "workers")
    publisher.publish("job.a")
    assert sorted(subscriptions for subscriptions, _, _ in worker.events()) == [[plain], [grouped]]


def test_a_member_that_left_gets_no_turn(mesh: Mesh) -> None:
    workers, publisher = members(mesh, 3), mesh.client()
    publisher.publish("job.a")
    workers[0].take()
    workers[0].vanish()
    shares(workers)
    for _ in range(10):
        publisher.publish("job.a")
    assert shares(workers) == [0, 5, 5]


def test_a_member_without_credit_is_passed_over_while_others_have_some(mesh: Mesh) -> None:
    workers, publisher = members(mesh, 3), mesh.client()
    workers[1].spend_credit()
    for _ in range(20):
        publisher.publish("job.a")
    assert shares(workers) == [10, 0, 10]


def test_when_no_member_has_credit_the_events_wait_and_each_is_delivered_once(mesh: Mesh) -> None:
    workers, publisher = members(mesh, 2), mesh.client()
    for worker in workers:
        worker.spend_credit()
    for number in range(10):
        publisher.publish("job.a", b"%d" % number)
    assert shares(workers) == [0, 0]
    for worker in workers:
        worker.grant(10_000)
    got = [content for worker in workers for content in worker.bodies()]
    assert sorted(got) == [b"%d" % number for number in range(10)]


@pytest.mark.parametrize("stuck", [1, 3])
def test_members_that_never_read_do_not_stop_a_group_in_which_one_does(stuck: int) -> None:
    mesh = Mesh(Limits(event_credit=20_000, publish_credit=2_500, backlog_bytes=50_000))
    *_, reader = members(mesh, stuck + 1)
    publisher = mesh.client()
    each = cost(b"x" * 100)
    window, handled = 2_500, 0
    for _ in range(300):
        while window > 0:
            publisher.publish("job.a", b"x" * 100)
            window -= each
        # The reader gives credit back as the protocol demands at the latest: a quarter of its window at a time.
        handled += len(reader.events())
        if handled * each >= 5_000:
            reader.grant(handled * each)
            handled = 0
        window += sum(packet.amount for packet in publisher.all_of(p.Credit))
        if window <= 0:
            reader.grant(handled * each)
            handled = 0
            window += sum(packet.amount for packet in publisher.all_of(p.Credit))
        assert window > 0, "the publisher waits though nothing waits for the member that reads"


def test_a_member_that_lags_is_passed_over_while_others_keep_up(mesh: Mesh) -> None:
    workers, publisher = members(mesh, 3), mesh.client()
    workers[1].spend_credit(left=mesh.router.limits.event_credit // 2 - 1)
    for _ in range(20):
        publisher.publish("job.a")
    assert shares(workers) == [10, 0, 10]
    assert publisher.session.outbox.consumed == 20 * cost()


def test_when_all_members_lag_the_one_with_most_credit_gets_the_event_and_the_publisher_waits(mesh: Mesh) -> None:
    first, second = members(mesh, 2)
    publisher = mesh.client()
    half = mesh.router.limits.event_credit // 2
    first.spend_credit(left=half - 10 * cost())
    second.spend_credit(left=half - 5 * cost())
    for _ in range(5):
        publisher.publish("job.a")
    assert shares([first, second]) == [0, 5]
    assert publisher.session.outbox.consumed == 0
    for _ in range(4):
        publisher.publish("job.a")
    assert shares([first, second]) == [2, 2]


def test_when_all_members_are_out_of_credit_the_event_waits_where_the_least_waits(mesh: Mesh) -> None:
    first, second = members(mesh, 2)
    publisher = mesh.client()
    first.spend_credit(left=0)
    second.spend_credit(left=-10 * cost())
    first.subscribe("news")
    for _ in range(3):
        publisher.publish("news")
    for _ in range(5):
        publisher.publish("job.a")
    for worker in (first, second):
        worker.grant(100 * cost())
    assert [len([one for one in worker.events() if one[1] == "job.a"]) for worker in (first, second)] == [1, 4]
