"""The judge of chaos: books that balance pass, and each kind of fault in them is found."""

from pathlib import Path

import pytest

from tools.disorder.balance_calls import check_requests
from tools.disorder.balance_events import ON_ITS_WAY, check_group, check_receipts, check_stretches
from tools.disorder.books import Book, Disturbance, read_books
from tools.disorder.cast import MEMBERS
from tools.disorder.ledger import Ledger, now
from tools.disorder.spans import causeless, date_ends, unexplained
from tools.disorder.state import missed

SECOND = 1_000_000


def book(who: str, *lines: str) -> Book:
    made = Book(who, MEMBERS[who.partition(".")[0]])
    for line in lines:
        made.enter(line.split())
    return made


def publisher(numbers: range, *more: str, weight: int = 10, who: str = "firm-a.1") -> Book:
    """Publishes number n at n seconds, in session 7, which stands from the beginning."""
    lines = ["0 in 7 0"]
    for number in numbers:
        lines += [f"{number * SECOND} publish {number} {weight}", f"{number * SECOND + 1} published {number} 7"]
    return book(who, *lines, *more)


def subscriber(numbers: list[int], *more: str, who: str = "keen-a.2") -> Book:
    """Gets these numbers, in session 9, which stands from the beginning."""
    lines = [f"{number * SECOND + 100} event 0 firm-a.1 {number}" for number in numbers]
    return book(who, "0 in 9 0", *lines, *more)


def faults(sender: Book, taker: Book, *done: Disturbance) -> list[str]:
    date_ends([sender, taker], done)
    return [*check_receipts({sender.who: sender}, taker), *check_stretches(sender, taker)]


def test_events_that_came_once_and_in_order_balance() -> None:
    assert faults(publisher(range(1, 6)), subscriber([1, 2, 3, 4, 5])) == []


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ([1, 2, 4, 5], "1 events of firm-a.1 (session 7) at keen-a.2 (session 9) are missing between others"),
        ([1, 2, 3, 3, 4, 5], "got event 3 of firm-a.1 twice"),
        ([1, 3, 2, 4, 5], "got event 2 of firm-a.1 after event 3"),
        ([1, 2, 3, 4, 5, 6], "got event 6 of firm-a.1, which was not published"),
        (
            [1, 2, 3, 4],
            "1 events of firm-a.1 (session 7) at keen-a.2 (session 9) are missing though both sessions lasted",
        ),
        ([2, 3, 4, 5], "are missing between others, the first is 1"),
    ],
)
def test_a_fault_among_events_is_found(numbers: list[int], complaint: str) -> None:
    assert any(complaint in fault for fault in faults(publisher(range(1, 6)), subscriber(numbers)))


def test_what_was_on_its_way_when_the_subscriber_was_killed_may_be_missing_and_no_more() -> None:
    killed = Disturbance("kill", "keen-a.2", 4 * SECOND + 2, 4 * SECOND + 3)
    assert faults(publisher(range(1, 6)), subscriber([1, 2, 3]), killed) == []
    heavy = publisher(range(1, 6), weight=ON_ITS_WAY)
    assert "bytes" in faults(heavy, subscriber([1, 2, 3]), killed)[0]


def test_a_publisher_that_left_in_order_loses_nothing() -> None:
    left = publisher(range(1, 6), f"{6 * SECOND} leave", f"{6 * SECOND + 1} exit 0")
    assert "missing though both sessions lasted" in faults(left, subscriber([1, 2, 3, 4]))[0]


def test_a_group_gets_each_event_once_and_misses_what_was_lost_with_a_member() -> None:
    sender = publisher(range(1, 6))
    one, other = subscriber([1, 3], who="team-a.2"), subscriber([2, 4, 5], who="team-b.3")
    assert list(check_group(sender, [one, other])) == []
    twice = subscriber([2, 3, 4, 5], who="team-b.3")
    assert "got event 3 of firm-a.1 2 times" in next(check_group(sender, [one, twice]))
    fewer = subscriber([2, 5], who="team-b.3")
    assert "event 4 of firm-a.1 reached no member" in next(check_group(sender, [one, fewer]))
    date_ends([one], [Disturbance("kill", "team-a.2", 4 * SECOND, 4 * SECOND)])
    assert list(check_group(sender, [one, fewer])) == []


def test_a_group_loses_nothing_with_a_member_that_left_in_order() -> None:
    sender = publisher(range(1, 6))
    left = subscriber([1, 3], f"{4 * SECOND + 2} leave", f"{4 * SECOND + 3} exit 0", who="team-a.2")
    stays = subscriber([2, 5], who="team-b.3")
    date_ends([sender, left, stays], [])
    assert "event 4 of firm-a.1 reached no member" in next(check_group(sender, [left, stays]))


@pytest.mark.parametrize(
    ("ends", "runs", "complaint"),
    [
        ("2 ended c reply", "3 run c", None),
        ("2 ended c timeout", "3 run c", None),
        ("2 ended c unavailable", "3 run x", "which nobody made"),
        ("2 ended c reply", "3 quiet", "was answered, and ran 0 times"),
        ("2 ended c unavailable", "3 run c", "was refused with 'unavailable', and ran"),
        ("2 ended c reply 'other'", "3 run c", "ended with"),
        ("2 quiet", "3 run c", "had 0 outcomes"),
        (f"{60 * SECOND} ended c timeout", "3 run c", "ended after 60.0 s, with a timeout of 50 ms"),
    ],
)
def test_requests_balance_or_the_fault_is_found(ends: str, runs: str, complaint: str | None) -> None:
    caller, server = book("caller-a.1", "1 call c 50", ends), book("worker.2", runs)
    found = list(check_requests([caller], [server], []))
    assert found == [] if complaint is None else complaint in found[0]


def test_a_handler_that_ran_twice_for_one_request_is_found() -> None:
    caller, servers = book("caller-a.1", "1 call c 50", "9 ended c reply"), [book("worker.2", "3 run c", "4 run c")]
    assert "request c ran 2 times" in next(check_requests([caller], servers, []))


def test_a_session_may_end_with_the_broker_and_not_without_a_cause() -> None:
    lost = subscriber([1], f"{5 * SECOND} out 9")
    assert "though the broker was well" in next(causeless([lost], [], 6 * SECOND))
    fell = Disturbance("kill", "broker", 4 * SECOND, 6 * SECOND)
    assert list(causeless([lost], [fell], 6 * SECOND)) == []
    short = Disturbance("freeze", "broker", 3 * SECOND, 4 * SECOND)
    assert list(causeless([lost], [short], 6 * SECOND))


def test_a_process_that_ended_and_was_not_killed_is_found() -> None:
    gone = subscriber([1, 2])
    assert "was killed" in next(unexplained([gone], [], set()))
    assert list(unexplained([gone], [Disturbance("kill", "keen-a.2", 3 * SECOND, 3 * SECOND)], set())) == []
    assert list(unexplained([gone], [], {2})) == []


def test_a_process_ends_with_the_broker_however_long_it_had_nothing_to_enter_but_not_before() -> None:
    held_up = subscriber([1, 2])
    fall = Disturbance("kill", "broker", 20 * SECOND, 21 * SECOND)
    after, before = (book("keen-a.3", f"{second * SECOND} begin") for second in (22, 4))
    assert list(unexplained([held_up, after], [fall], {3})) == []
    assert "was killed" in next(unexplained([held_up, before], [fall], {3}))


def test_what_was_started_by_hand_does_not_end_because_the_broker_does() -> None:
    fall = Disturbance("end", "broker", 2 * SECOND, 3 * SECOND)
    told = subscriber([1, 2], f"{2 * SECOND + 200} leave", f"{2 * SECOND + 300} exit 0", who="keen-b.2")
    assert "and nobody had told it to" in next(unexplained([told], [fall], set()))
    restart = Disturbance("restart", "keen-b.2", 2 * SECOND, 2 * SECOND + 400)
    assert list(unexplained([told], [fall, restart], set())) == []
    never_in = book("keen-b.2", f"{2 * SECOND} begin", f"{2 * SECOND + 1} exit 69")
    assert list(unexplained([never_in], [fall], set())) == []


def test_drops_are_what_is_missing_for_certain_and_at_most() -> None:
    sender = publisher(range(1, 6), who="loose-a.1")
    taker = book("old-a.2", f"{2 * SECOND} in 9 0", f"{5 * SECOND} event 0 loose-a.1 5")
    assert missed(taker, {sender.who: sender}) == (3, 4)


def test_a_ledger_is_read_up_to_the_line_that_a_kill_has_cut_off(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "firm-a")
    ledger.write("publish", 1, 10)
    with (tmp_path / ledger.who).open("a") as file:
        file.write("123 publ")
    (read,) = read_books(tmp_path)
    assert list(read.published) == [1]


def test_a_process_that_was_killed_before_it_entered_anything_ended_when_it_made_its_ledger(tmp_path: Path) -> None:
    begin = now()
    (tmp_path / "keen-a.7").touch()
    (read,) = read_books(tmp_path)
    assert list(unexplained([read], [Disturbance("kill", "broker", begin, now())], set())) == []
    assert list(unexplained([read], [Disturbance("kill", "broker", 0, begin - 60 * SECOND)], set()))
