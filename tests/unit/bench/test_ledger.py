"""The ledgers of the benchmark notice every way in which a bus can cheat."""

import pytest

from tools.benchmark.ledger import Ledger, RequestLedger
from tools.benchmark.payload import BEGIN, END, PROBE, numbers


def deliver(*events: int, count: int = 4) -> Ledger:
    ledger = Ledger(publishers=1, count=count)
    for number in events:
        ledger.take(0, number)
    return ledger


def test_a_stream_that_arrives_once_and_in_order_has_no_faults() -> None:
    ledger = deliver(*numbers(count=4, warmup=3))
    assert ledger.complete
    assert ledger.faults() == []
    assert 0 < ledger.began_ns <= ledger.ended_ns


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ((BEGIN, 0, 1, 3, END), "publisher 0: 1 of 4 events lost"),
        ((BEGIN, 2, 3, END), "publisher 0: 2 of 4 events lost"),
        ((BEGIN, 0, 1, 2, END), "publisher 0: 1 of 4 events lost"),
        ((BEGIN, END), "publisher 0: 4 of 4 events lost"),
        ((BEGIN, 0, 1, 1, 2, 3, END), "publisher 0: 1 of 4 events doubled"),
        ((BEGIN, 0, 1, 2, 3, END, 3), "publisher 0: 1 of 4 events doubled"),
        ((BEGIN, BEGIN, 0, 1, 2, 3, END), "publisher 0: 1 of 4 events doubled"),
        ((BEGIN, 0, 1, 2, 3, END, END), "publisher 0: 1 of 4 events doubled"),
        ((BEGIN, 0, 2, 1, 3, END), "publisher 0: 1 of 4 events reordered"),
        ((BEGIN, 3, 2, 1, 0, END), "publisher 0: 3 of 4 events reordered"),
        ((BEGIN, 0, 1, 2, END, 3), "publisher 0: 1 of 4 events reordered"),
        ((0, BEGIN, 1, 2, 3, END), "publisher 0: 1 of 4 events reordered"),
        ((BEGIN, 0, 1, 2, 3, 4, END), "publisher 0: 1 of 4 events more than were sent"),
        ((BEGIN, 0, 1, 2, 3, END, 99), "an event with the unknown id 99"),
        ((BEGIN, 0, 1, 2, 3, END, -7), "an event with the unknown id -7"),
        ((0, 1, 2, 3, END), "publisher 0: the begin of its events never came"),
        ((BEGIN, 0, 1, 2, 3), "publisher 0: the end of its events never came"),
    ],
)
def test_every_fault_of_a_stream_is_named(events: tuple[int, ...], fault: str) -> None:
    assert fault in deliver(*events).faults()


def test_a_loss_and_a_doubled_event_do_not_cancel_out() -> None:
    faults = deliver(BEGIN, 0, 0, 2, 3, END).faults()
    assert "publisher 0: 1 of 4 events lost" in faults
    assert "publisher 0: 1 of 4 events doubled" in faults


def test_order_is_kept_per_publisher_only() -> None:
    ledger = Ledger(publishers=2, count=2)
    for publisher, number in [(1, BEGIN), (0, BEGIN), (1, 0), (1, 1), (0, 0), (1, END), (0, 1), (0, END)]:
        ledger.take(publisher, number)
    assert ledger.complete
    assert ledger.faults() == []


def test_one_publisher_cannot_stand_in_for_another() -> None:
    ledger = Ledger(publishers=2, count=1)
    for number in (BEGIN, 0, 0, END):
        ledger.take(0, number)
    assert not ledger.complete
    assert ledger.faults() == [
        "publisher 0: 1 of 1 events doubled",
        "publisher 1: 1 of 1 events lost",
        "publisher 1: the begin of its events never came",
        "publisher 1: the end of its events never came",
    ]


def test_ready_is_said_once_when_every_publisher_was_heard() -> None:
    calls: list[str] = []
    ledger = Ledger(2, 1, on_ready=lambda: calls.append("ready"), on_complete=lambda: calls.append("complete"))
    ledger.take(0, PROBE)
    ledger.take(0, PROBE)
    assert calls == []
    ledger.take(1, PROBE)
    ledger.take(1, PROBE)
    assert calls == ["ready"]


def test_progress_grows_with_probes_events_and_markers() -> None:
    ledger = Ledger(publishers=1, count=2)
    seen = [ledger.progress()]
    for number in (PROBE, 0, 1, END):
        ledger.take(0, number)
        seen.append(ledger.progress())
    assert seen == sorted(set(seen))


def test_requests_may_come_in_any_order_but_once() -> None:
    ledger = RequestLedger(count=3)
    for number in (PROBE, 2, 0, 1, END):
        ledger.take(number)
    assert ledger.faults() == []
    assert ledger.progress() == 3


def test_lost_doubled_and_invented_requests_are_named() -> None:
    ledger = RequestLedger(count=3)
    for number in (0, 0, 7, END):
        ledger.take(number)
    assert ledger.faults() == [
        "2 of 3 requests never reached the server",
        "1 of 3 requests ran more than once",
        "1 requests had an unknown id",
    ]
