"""Every inner time of a shutdown is shorter than the time around it."""

from itertools import pairwise

import pytest

from broker.shutdown.windows import IN_ORDER, INNER, STOP_PLUGINS, Window, plugin_secs


@pytest.mark.parametrize("total", [0.1, 1, 30, 3600])
def test_each_phase_must_be_over_before_the_next_one_and_the_last_one_with_the_whole(total: float) -> None:
    ends = [window.secs(total, 0) if window.most >= window.by else window.by * total for window in IN_ORDER]
    assert all(earlier < later for earlier, later in pairwise(ends))
    assert ends[-1] == pytest.approx(total)


@pytest.mark.parametrize("total", [1, 30])
def test_phases_that_use_up_all_of_their_time_leave_some_to_each_of_those_after_them(total: float) -> None:
    spent = 0.0
    for window in IN_ORDER:
        secs = window.secs(total, spent)
        assert secs > 0
        spent += secs
    assert spent <= total


def test_a_phase_inherits_what_those_before_it_did_not_need() -> None:
    assert STOP_PLUGINS.secs(30, spent=1.0) == pytest.approx(STOP_PLUGINS.by * 30 - 1)


def test_a_window_has_a_bound_of_its_own_however_much_is_left() -> None:
    assert Window(by=1.0, most=0.1).secs(30, spent=0.0) == pytest.approx(3.0)


def test_a_phase_that_comes_after_its_time_gets_none() -> None:
    assert Window(by=0.5).secs(30, spent=16.0) == 0.0


def test_what_plugins_have_for_certain_is_less_than_their_window() -> None:
    assert plugin_secs(30) == pytest.approx((0.85 - 0.4) * 30 * INNER)
