"""Deadlines are found in time: never early, and late by no more than the resolution."""

from __future__ import annotations

import math

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from plugin_sdk.wire.deadlines import RESOLUTION, Deadlines

EPSILON = 1e-6  # what doubles lose at the times used here
times = st.floats(0, 1e6, allow_nan=False)


@settings(max_examples=500, deadline=None)
@given(times)
@example(0.0)
@example(RESOLUTION)
@example(0.29)  # 0.29 / 0.01 is 28.999999999999996
@example(math.nextafter(0.07, 0))
def test_a_deadline_is_never_found_early_and_at_most_the_resolution_late(when: float) -> None:
    deadlines = Deadlines()
    deadlines.add(1, when)
    due = deadlines.next()
    assert due is not None
    assert when <= due <= when + RESOLUTION + EPSILON
    assert deadlines.expire(math.nextafter(due, 0)) == []
    assert deadlines.expire(due) == [1]
    assert deadlines.expire(math.inf) == []


def test_nothing_is_due_when_there_is_nothing() -> None:
    assert Deadlines().next() is None
    assert Deadlines().expire(1e9) == []


def test_who_asks_with_a_day_to_spare_and_cancels_at_once_leaves_no_room_taken() -> None:
    deadlines, kept = Deadlines(), []
    for number in range(100_000):
        slot = deadlines.add(number, 10 + number * RESOLUTION)
        if number % 1000:
            deadlines.discard(number, slot)
        else:
            kept.append(number)
    assert len(deadlines._buckets) == len(deadlines._slots) < 5000
    assert deadlines.expire(math.inf) == kept


def test_keys_come_in_the_order_of_their_time_slots() -> None:
    deadlines = Deadlines()
    for key, when in ((1, 3.0), (2, 1.0), (4, 2.0), (3, 2.0)):
        deadlines.add(key, when)
    assert deadlines.expire(10.0) == [2, 3, 4, 1]


def test_a_discarded_key_is_not_found_and_does_not_wake_anybody() -> None:
    deadlines = Deadlines()
    slot = deadlines.add(1, 1.0)
    deadlines.discard(1, slot)
    deadlines.discard(1, slot)
    assert deadlines.next() is None
    assert deadlines.expire(10.0) == []


def test_a_slot_can_be_used_again_after_it_was_emptied() -> None:
    deadlines = Deadlines()
    deadlines.discard(1, deadlines.add(1, 1.0))
    deadlines.add(2, 1.0)
    assert deadlines.expire(10.0) == [2]


def test_discarding_after_the_time_has_come_changes_nothing() -> None:
    deadlines = Deadlines()
    slot = deadlines.add(1, 1.0)
    assert deadlines.expire(2.0) == [1]
    deadlines.discard(1, slot)
    assert deadlines.next() is None


def test_a_hundred_thousand_finished_requests_leave_few_entries_behind() -> None:
    deadlines = Deadlines()
    for key in range(100_000):
        deadlines.discard(key, deadlines.add(key, 5.0 + key / 100_000))
    assert len(deadlines._slots) <= 1 / RESOLUTION + 2


class AgainstAModel(RuleBasedStateMachine):
    """Any sequence of additions, removals and looks at the clock, beside a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines = Deadlines()
        self.pending: dict[int, tuple[float, int]] = {}
        self.now = 0.0
        self.keys = 0

    @rule(ahead=st.floats(0, 2, allow_nan=False))
    def add(self, ahead: float) -> None:
        self.keys += 1
        when = self.now + ahead
        self.pending[self.keys] = (when, self.deadlines.add(self.keys, when))

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.pending)))
        self.deadlines.discard(key, self.pending.pop(key)[1])

    @rule(passed=st.floats(0, 1, allow_nan=False))
    def expire(self, passed: float) -> None:
        self.now += passed
        for key in self.deadlines.expire(self.now):
            when, _ = self.pending.pop(key)
            assert when <= self.now

    @invariant()
    def nothing_is_overdue(self) -> None:
        late = [key for key, (when, _) in self.pending.items() if when + RESOLUTION + EPSILON < self.now]
        overdue = self.deadlines.expire(self.now) if late else []
        assert set(late) <= set(overdue)
        for key in overdue:
            del self.pending[key]

    @invariant()
    def the_next_look_is_for_the_first_one(self) -> None:
        due = self.deadlines.next()
        if not self.pending:
            assert due is None
            return
        first = min(when for when, _ in self.pending.values())
        assert due is not None
        assert first <= due <= first + RESOLUTION + EPSILON


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
