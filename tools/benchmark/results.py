"""What a run found out, in the shape in which it is printed, stored and compared."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from tools.benchmark.figures import Figure, advantage

OURS = "plugmesh"
# Rates grow with quality; times, memory and CPU shrink.
_RATE = "/s"


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing measured, of every system that took part."""

    title: str
    unit: str
    systems: dict[str, Figure]

    @property
    def less_is_better(self) -> bool:
        """Whether a smaller figure is the better one."""
        return not self.unit.endswith(_RATE)

    def ratio(self, other: str) -> float | None:
        """How many times better plugmesh is than `other`; None when one of the two was not measured."""
        if OURS not in self.systems or other not in self.systems:
            return None
        return advantage(self.systems[OURS], self.systems[other], less_is_better=self.less_is_better)

    def paired(self, other: str) -> Figure:
        """What `other` took or made in each round, as a multiple of plugmesh in the same round."""
        ours, theirs = self.systems[OURS].rounds, self.systems[other].rounds
        return Figure.over([value / base for base, value in zip(ours, theirs, strict=True)])


@dataclass(frozen=True, slots=True)
class Results:
    """Everything one run found out, with what is needed to judge it."""

    machine: dict[str, str]
    versions: dict[str, str]
    quick: bool
    rounds: int
    traffic: tuple[Measure, ...]
    footprint: tuple[Measure, ...]
    tracing: tuple[Measure, ...] = ()

    def find(self, title: str, unit: str) -> Measure | None:
        """The measure of that title and unit, if it was taken."""
        for measure in (*self.traffic, *self.footprint):
            if (measure.title, measure.unit) == (title, unit):
                return measure
        return None

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read what `save` wrote; raises msgspec.DecodeError when it is not that."""
        return msgspec.json.decode(path.read_bytes(), type=cls)
