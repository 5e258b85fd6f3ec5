"""The command line of `tools/simulate`."""

from __future__ import annotations

import sys
import time

import click

from tests.simulation.batch import run_many
from tests.simulation.run import STEPS, Outcome, shorten, simulate

_SHOWN = 3  # failures that are made as short as they can be, and shown
_PROGRESS_SECS = 10.0


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=1000, show_default=True, help="How many runs.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The seed of the first run.")
@click.option("--steps", type=click.IntRange(min=0), default=STEPS, show_default=True, help="Actions of each run.")
@click.option("--jobs", type=click.IntRange(min=0), default=0, help="Processes [one a core].")
@click.option("--trace", is_flag=True, help="Run the first seed only, and show all that happens in it.")
def main(seeds: int, seed: int, steps: int, jobs: int, trace: bool) -> None:
    """Run the real router, edge and SDK on a simulated clock and network, and check what must always hold.

    Everything in a run follows from its seed: the same seed shows the same again. What must hold is listed in
    tests/simulation/invariants.py. Exits 1 when something does not.
    """
    if trace:
        sys.exit(_show(simulate(seed, steps)))
    began = time.monotonic()
    faulty = _run(seed, seeds, steps, jobs)
    took = time.monotonic() - began
    for outcome in faulty[:_SHOWN]:
        click.echo(f"{shorten(outcome)}\n")
    verdict = f"{len(faulty)} of them break an invariant" if faulty else "no invariant was broken"
    click.echo(f"{seeds} seeds of {steps} steps in {took:.1f} s ({seeds / took:.0f} a second): {verdict}")
    sys.exit(1 if faulty else 0)


def _run(seed: int, seeds: int, steps: int, jobs: int) -> list[Outcome]:
    faulty: list[Outcome] = []
    done, told = 0, time.monotonic()
    for number, found in run_many(seed, seeds, steps, jobs):
        done += number
        faulty += found
        if time.monotonic() - told > _PROGRESS_SECS:
            told = time.monotonic()
            click.echo(f"{done} of {seeds} seeds, {len(faulty)} with a fault", err=True)
    return sorted(faulty, key=lambda outcome: outcome.seed)


def _show(outcome: Outcome) -> int:
    for when, text in outcome.trace:
        click.echo(f"{when:10.4f}  {text}")
    click.echo(f"{len(outcome.faults)} faults, digest of the traffic {outcome.digest:08x}")
    return 1 if outcome.faults else 0
