"""Many seeds on several cores, each with a watch on it: a coroutine that never waits would stop the simulation."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from types import FrameType

from tests.simulation.loop import Stalled
from tests.simulation.run import STEPS, Outcome, simulate

CHUNK = 50
SEED_SECS = 20.0  # of real time; a run takes milliseconds


def run_many(first: int, number: int, steps: int = STEPS, jobs: int = 0) -> Iterator[tuple[int, list[Outcome]]]:
    """Run seeds in other processes.

    Args:
        first: the first seed.
        number: how many.
        steps: actions of each run.
        jobs: how many processes; 0 for one a core.

    Yields:
        How many seeds have been run since the last time, and those outcomes of them that show a fault.
    """
    chunks = [range(start, min(start + CHUNK, first + number)) for start in range(first, first + number, CHUNK)]
    # Not forked from a process that may have threads, and whose tests may have left anything behind.
    with get_context("spawn").Pool(jobs or os.cpu_count(), _watch) as pool:
        yield from pool.imap_unordered(partial(_run_chunk, steps=steps), chunks)


def _run_chunk(seeds: range, steps: int) -> tuple[int, list[Outcome]]:
    faulty: list[Outcome] = []
    for seed in seeds:
        signal.setitimer(signal.ITIMER_REAL, SEED_SECS)
        outcome = simulate(seed, steps)
        if outcome.faults:
            faulty.append(outcome)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return len(seeds), faulty


def _watch() -> None:
    signal.signal(signal.SIGALRM, _on_alarm)
    # Ctrl-C is for the process that waits for all of these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_alarm(number: int, frame: FrameType | None) -> None:
    raise Stalled(f"a step did not end within {SEED_SECS:g} s")
