"""The benchmark's statistics are the ones their names promise."""

import pytest

from tools.benchmark.figures import Figure, advantage, percentile


def test_a_figure_is_the_median_with_its_range() -> None:
    assert Figure.over([3.0, 1.0, 2.0]) == Figure(median=2.0, low=1.0, high=3.0, rounds=(3.0, 1.0, 2.0))


def test_the_median_of_an_even_number_of_rounds_lies_between_the_middle_two() -> None:
    assert Figure.over([4.0, 1.0, 2.0, 10.0]).median == 3.0


def test_a_figure_of_no_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one round"):
        Figure.over([])


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.505, 51), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_the_nearest_rank(share: float, value: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value


def test_the_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7], 0.99) == 7


def test_a_percentile_of_nothing_or_beyond_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match=r"between 0 and 1, not 99"):
        percentile([1], 99)


def test_an_advantage_above_one_means_better_whichever_way_the_measure_runs() -> None:
    ours, theirs = Figure.over([200.0]), Figure.over([100.0])
    assert advantage(ours, theirs, less_is_better=False) == 2.0
    assert advantage(ours, theirs, less_is_better=True) == 0.5
