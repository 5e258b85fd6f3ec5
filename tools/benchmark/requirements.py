"""The speed and size that plugmesh promises, as ratios and bounds that `tools/bench --check` holds it to."""

from dataclasses import dataclass

from tools.benchmark.results import OURS, Measure, Results

YARDSTICK = "nats"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Plugmesh is at least `ratio` times as good as nats-py in one measure."""

    title: str
    unit: str
    ratio: float

    def shortfall(self, measure: Measure) -> str | None:
        """What is missing, in a sentence; None when nothing is."""
        reached = measure.ratio(YARDSTICK)
        if reached is None:
            return f"{self.title} ({self.unit}): plugmesh and {YARDSTICK} were not both measured"
        if reached >= self.ratio:
            return None
        return f"{self.title} ({self.unit}): {reached:.2f}x of {YARDSTICK}, but {self.ratio:g}x is required"


@dataclass(frozen=True, slots=True)
class AtMost:
    """A figure of plugmesh stays at or below a bound."""

    title: str
    unit: str
    bound: float

    def shortfall(self, measure: Measure) -> str | None:
        """What is missing, in a sentence; None when nothing is."""
        reached = measure.systems[OURS].median
        if reached <= self.bound:
            return None
        return f"{self.title}: {reached:.3g} {self.unit}, but at most {self.bound:g} {self.unit} is allowed"


IDLE_PLUGINS = 20

# Titles and units of the footprint measures.
START = ("broker run until it accepts a registration", "s")
REGISTRATION = ("plugin from spawn to registered", "s")
MEMORY = (f"broker memory with {IDLE_PLUGINS} idle plugins", "MiB")
IDLE_CPU = (f"broker CPU with {IDLE_PLUGINS} idle plugins", "% of a core")

REQUIREMENTS = (
    AtLeast("events 1→1", "events/s", 1.5),
    AtLeast("events 1→8", "deliveries/s", 1.5),
    AtLeast("events 8→1", "events/s", 1.5),
    AtLeast("requests one at a time", "µs p50", 1.0),
    AtLeast("requests 64 in flight", "calls/s", 1.5),
    AtMost(*START, 0.5),
    AtMost(*REGISTRATION, 0.5),
    AtMost(*MEMORY, 60.0),
    AtMost(*IDLE_CPU, 1.0),
)


def shortfalls(results: Results) -> list[str]:
    """Every requirement that `results` do not show to be met, a sentence each; what was not measured counts."""
    found = []
    for requirement in REQUIREMENTS:
        measure = results.find(requirement.title, requirement.unit)
        if measure is None:
            found.append(f"{requirement.title} ({requirement.unit}): not measured")
        elif text := requirement.shortfall(measure):
            found.append(text)
    return found
