"""A figure beside its bound."""

from dataclasses import dataclass


class ScaleError(Exception):
    """A figure could not be measured, or what was measured is not to be believed."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, and what it may be at most.

    Args:
        detail: how the bound or the figure came about.
    """

    title: str
    value: float
    bound: float
    unit: str
    detail: str = ""

    @property
    def kept(self) -> bool:
        """Whether it is within its bound."""
        return self.value <= self.bound

    def __str__(self) -> str:
        verdict = "ok  " if self.kept else "MISS"
        more = f" ({self.detail})" if self.detail else ""
        return f"{verdict} {self.title}: {self.value:.3g} {self.unit}, at most {self.bound:.3g}{more}"
