"""Thousands of runs of broker and SDK on a simulated network in which everything fails: what must hold, holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.batch import run_many
from tests.simulation.mutants import planted
from tests.simulation.run import shorten, simulate

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the coverage of thousands of runs would take four times as long, and show what is measured anyway."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("first", "number", "steps"), [(0, 2000, 20), (100_000, 100, 80)])
def test_no_run_breaks_an_invariant(first: int, number: int, steps: int) -> None:
    done, faulty = 0, []
    for some, found in run_many(first, number, steps):
        done += some
        faulty += found
    assert done == number
    assert not faulty, "\n\n".join(str(shorten(outcome)) for outcome in faulty[:3])


def test_a_seed_repeats_exactly() -> None:
    assert [simulate(seed) for seed in range(5)] == [simulate(seed) for seed in range(5)]


def test_a_seed_repeats_exactly_in_another_process_that_hashes_otherwise() -> None:
    code = (
        "import json; from tests.simulation.run import simulate;"
        " print(json.dumps([simulate(seed).digest for seed in range(5)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1234", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(answer.stdout) == [simulate(seed).digest for seed in range(5)]


def test_the_first_steps_of_a_run_do_not_depend_on_how_many_follow() -> None:
    short, long = simulate(3, 5), simulate(3, 10)
    assert long.trace[: len(short.trace)] == short.trace


def test_a_failure_is_reported_with_its_seed_and_the_shortest_run_that_shows_it() -> None:
    with planted("a lost callee keeps its requests"):
        outcome = next(found for found in map(simulate, range(100)) if found.faults)
        shortest = shorten(outcome)
        assert not simulate(outcome.seed, shortest.steps - 1).faults
    assert shortest.faults
    assert shortest.steps <= outcome.steps
    assert f"again: tools/simulate --seed {outcome.seed} --seeds 1 --steps {shortest.steps}" in str(shortest)
    assert shortest.faults[0] in str(shortest)
