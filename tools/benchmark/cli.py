"""The command line of `tools/bench`."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click
import msgspec

from tools.benchmark import facts, footprint, rounds
from tools.benchmark.child import BenchmarkError
from tools.benchmark.markdown import render
from tools.benchmark.requirements import shortfalls
from tools.benchmark.results import OURS, Measure, Results
from tools.benchmark.scenarios import EVENTS, REQUESTS, TRACING
from tools.benchmark.systems.base import System
from tools.benchmark.systems.nats import Nats
from tools.benchmark.systems.plugmesh import Plugmesh
from tools.benchmark.systems.pyzmq import Pyzmq
from tools.benchmark.systems.traced import TracingOff, TracingSome

_SYSTEMS: dict[str, type[System]] = {system.name: system for system in (Plugmesh, Nats, Pyzmq)}
_USUAL = ("events", "requests", "footprint")
_PARTS = (*_USUAL, "tracing")
_FULL_ROUNDS = 5
_QUICK_ROUNDS = 1


def _some_of(known: Iterable[str]) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Read a comma-separated choice of the `known` names."""

    def read(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(value.split(","))
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def _results(context: click.Context, parameter: click.Parameter, file: Path | None) -> Results | None:
    try:
        return Results.load(file) if file else None
    except (OSError, msgspec.DecodeError) as error:
        raise click.BadParameter(f"{file} does not hold results of this benchmark: {error}") from error


@click.command()
@click.option("--quick", is_flag=True, help="Short measurements, one round: shows that it works, not how fast.")
@click.option("--rounds", "count", type=click.IntRange(min=1), help=f"Rounds of each measurement [{_FULL_ROUNDS}].")
@click.option("--only", callback=_some_of(_PARTS), default=",".join(_USUAL), show_default=True, help="What to measure.")
@click.option(
    "--systems", callback=_some_of(_SYSTEMS), default=",".join(_SYSTEMS), show_default=True, help="What to compare."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    callback=_results,
    help="Compare the ratios with those in this file, written by --json.",
)
@click.option("--check", is_flag=True, help="Exit 1 when a promised ratio or bound is not reached.")
def main(
    quick: bool,
    count: int | None,
    only: tuple[str, ...],
    systems: tuple[str, ...],
    json_file: Path | None,
    baseline: Results | None,
    check: bool,
) -> None:
    """Measure plugmesh side by side with nats-py on nats-server and with bare pyzmq.

    Every endpoint is a process of its own and every event is checked: one that is lost, doubled or out of order
    fails the run.
    """
    number = count or (_QUICK_ROUNDS if quick else _FULL_ROUNDS)
    try:
        results = _measure([_SYSTEMS[name]() for name in systems], only, number, quick=quick)
    except BenchmarkError as error:
        raise click.ClickException(str(error)) from error
    if json_file is not None:
        results.save(json_file)
    click.echo(render(results, baseline))
    if check:
        _check(results)


def _measure(systems: Sequence[System], only: Sequence[str], number: int, *, quick: bool) -> Results:
    if warning := facts.busy():
        _progress(f"warning: {warning}")
    machine, versions = facts.machine(), facts.versions(systems)
    scenarios = [*(EVENTS if "events" in only else ()), *(REQUESTS if "requests" in only else ())]
    traffic = rounds.run(systems, scenarios, number, quick=quick, progress=_progress) if scenarios else []
    ours = any(system.name == OURS for system in systems)
    idle = footprint.measure(quick=quick, progress=_progress) if ours and "footprint" in only else []
    traced = _tracing(number, quick=quick) if ours and "tracing" in only else []
    return Results(machine, versions, quick, number, tuple(traffic), tuple(idle), tuple(traced))


def _tracing(number: int, *, quick: bool) -> list[Measure]:
    """Measure plugmesh without tracing, with tracing that is off, and with some."""
    systems = [Plugmesh(), TracingOff(), TracingSome()]
    return rounds.run(systems, TRACING, number, quick=quick, progress=_progress, metered=True)


def _check(results: Results) -> None:
    missing = shortfalls(results)
    for text in missing:
        click.echo(f"not reached: {text}", err=True)
    if missing:
        sys.exit(1)


def _progress(text: str) -> None:
    click.echo(text, err=True)
