"""The run: all servers up side by side, every scenario in interleaved rounds over all systems."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tools.benchmark.figures import Figure
from tools.benchmark.measure import Values, measure_events, measure_requests
from tools.benchmark.meter import Meter
from tools.benchmark.results import Measure
from tools.benchmark.scenarios import Events, Requests
from tools.benchmark.systems.base import System

CPU = "µs CPU each"  # of all processes together

Scenario = Events | Requests
Progress = Callable[[str], None]


def run(
    systems: Sequence[System],
    scenarios: Sequence[Scenario],
    rounds: int,
    *,
    quick: bool,
    progress: Progress,
    metered: bool = False,
) -> list[Measure]:
    """Measure every scenario `rounds` times on every system, in turns (A B C A B C …); `metered`: CPU time, too.

    Turns, so that whatever else the machine does hits all systems alike. The servers live for the whole run.
    Raises BenchmarkError as soon as one measurement fails.
    """
    measures: list[Measure] = []
    with ExitStack() as stack:
        for system in systems:
            stack.enter_context(_running(system))
        for scenario in scenarios:
            measures += _measure(systems, scenario, rounds, quick, progress, metered)
    return measures


def _measure(
    systems: Sequence[System], scenario: Scenario, rounds: int, quick: bool, progress: Progress, metered: bool
) -> Iterator[Measure]:
    taken: dict[str, list[Values]] = {system.name: [] for system in systems}
    meters = {system.name: Meter(system) for system in systems} if metered else {}
    for number in range(rounds):
        for system in systems:
            values = _once(system, scenario, quick, meters.get(system.name))
            taken[system.name].append(values)
            shown = ", ".join(f"{value:,.{0 if value >= 100 else 2}f} {unit}" for unit, value in values.items())
            progress(f"{scenario.title}, round {number + 1} of {rounds}, {system.name}: {shown}")
    for unit in values:
        yield Measure(
            scenario.title,
            unit,
            {name: Figure.over([values[unit] for values in of_rounds]) for name, of_rounds in taken.items()},
        )


def _once(system: System, scenario: Scenario, quick: bool, meter: Meter | None) -> Values:
    size = scenario.quick if quick else scenario.full
    if isinstance(scenario, Events):
        values = measure_events(system, scenario, size, meter)
        number = scenario.publishers * size.count
    else:
        values = measure_requests(system, scenario, size, meter)
        number = size.count
    return values if meter is None else {**values, CPU: meter.read() / number / 1000}


@contextmanager
def _running(system: System) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix=f"bench-{system.name}-") as directory:
        try:
            system.start(Path(directory))
            yield
        finally:
            system.stop()
