"""The few statistics the benchmark states: medians with their range over the rounds, percentiles, ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure over all rounds."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]

    @classmethod
    def over(cls, rounds: Sequence[float]) -> "Figure":
        """Summarise one value a round, of which there must be at least one."""
        if not rounds:
            raise ValueError("a figure needs the value of at least one round")
        return cls(median(rounds), min(rounds), max(rounds), tuple(rounds))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed (nearest rank).

    Raises ValueError for no values or a share outside 0 to 1.
    """
    if not values:
        raise ValueError("a percentile needs at least one value")
    if not 0 <= share <= 1:
        raise ValueError(f"a percentile's share is between 0 and 1, not {share}")
    rank = max(1, ceil(share * len(values)))
    return sorted(values)[rank - 1]


def advantage(ours: Figure, theirs: Figure, *, less_is_better: bool) -> float:
    """How many times better our median is than theirs; above 1 we win, whichever way the measure runs."""
    return theirs.median / ours.median if less_is_better else ours.median / theirs.median
