"""Rates that the broker tells of itself."""

import pytest

from broker.control.figures import Pace


def test_a_rate_is_the_average_since_the_last_look() -> None:
    pace = Pace()
    assert pace.per_second(100, 0.0) == 0.0
    assert pace.per_second(150, 10.0) == 5.0


def test_looks_that_are_too_close_do_not_disturb_it() -> None:
    pace = Pace()
    pace.per_second(0, 0.0)
    assert pace.per_second(100, 10.0) == 10.0
    assert pace.per_second(101, 10.1) == pytest.approx(10.0)
    assert pace.per_second(200, 20.0) == pytest.approx(10.0)


def test_a_burst_is_forgotten_after_a_minute() -> None:
    pace = Pace()
    for second in range(0, 300, 5):
        rate = pace.per_second(1000 if second >= 5 else 0, float(second))
        if second == 60:
            assert rate == pytest.approx(1000 / 60)
    assert rate == 0.0


def test_it_does_not_remember_more_than_it_needs() -> None:
    pace = Pace()
    for number in range(10_000):
        pace.per_second(number, number / 1000)
    assert len(pace._seen) < 70
