"""Restarting: delays, the budget, the slow retry and the three policies, on a clock that the test moves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.supervisor.restart import GiveUp, Leave, Restart, RestartLimits, RestartPolicy, RestartRecord, Verdict

LIMITS = RestartLimits()


def crash(record: RestartRecord, now: float, uptime: float = 0.0, dice: float = 1.0) -> Verdict:
    return record.ended(now, uptime, failed=True, dice=dice)


def test_delays_double_up_to_the_longest_when_runs_are_short() -> None:
    record = RestartRecord(RestartPolicy.ALWAYS, RestartLimits(budget=100))
    delays = [crash(record, now) for now in range(8)]
    assert delays == [Restart(delay) for delay in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)]


@settings(deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2000))
def test_every_delay_lies_between_half_a_second_and_thirty(dice: float, crashes: int) -> None:
    record = RestartRecord(RestartPolicy.ALWAYS, RestartLimits(budget=10_000))
    for now in range(crashes):
        verdict = crash(record, float(now), dice=dice)
        assert isinstance(verdict, Restart)
        assert 0.5 <= verdict.delay <= 30.0


def test_the_jitter_reaches_down_to_the_shortest_delay() -> None:
    record = RestartRecord(RestartPolicy.ALWAYS)
    crash(record, 0)
    assert crash(record, 1, dice=0.0) == Restart(0.5)


def test_five_restarts_within_a_minute_are_the_budget_and_then_it_tries_every_five_minutes() -> None:
    record = RestartRecord(RestartPolicy.ALWAYS)
    assert all(isinstance(crash(record, now), Restart) for now in (0, 10, 20, 30, 40))
    assert crash(record, 50) == GiveUp(300.0)
    assert isinstance(crash(record, 350), Restart), "after the slow retry the budget is full again"


def test_restarts_older_than_the_window_no_longer_count() -> None:
    record = RestartRecord(RestartPolicy.ALWAYS)
    for now in (0, 10, 20, 30, 40):
        crash(record, now)
    assert isinstance(crash(record, 60), Restart)
    assert isinstance(crash(record, 65), GiveUp)


def test_a_long_run_makes_the_next_delay_short_again() -> None:
    record = RestartRecord(RestartPolicy.ALWAYS)
    for now in (0, 100, 200):
        crash(record, now, uptime=10)
    assert crash(record, 400, uptime=60.0) == Restart(1.0)


def test_an_operators_start_clears_the_record() -> None:
    record = RestartRecord(RestartPolicy.ALWAYS)
    for now in range(5):
        crash(record, now)
    record.forget()
    assert crash(record, 6) == Restart(1.0)


@pytest.mark.parametrize(
    ("policy", "failed", "verdict"),
    [
        ("always", True, Restart(0.5)),
        ("always", False, Restart(0.5)),
        ("on-failure", True, Restart(0.5)),
        ("on-failure", False, Leave()),
        ("never", True, GiveUp(None)),
        ("never", False, Leave()),
    ],
)
def test_the_policy_decides_after_which_ends_it_comes_back(policy: str, failed: bool, verdict: Verdict) -> None:
    assert RestartRecord(RestartPolicy(policy)).ended(0.0, 0.0, failed, 0.0) == verdict


def test_a_start_that_failed_is_tried_again_slowly_unless_the_policy_is_never() -> None:
    assert RestartRecord(RestartPolicy.ON_FAILURE).slow_retry() == LIMITS.slow_retry
    assert RestartRecord(RestartPolicy.NEVER).slow_retry() is None
