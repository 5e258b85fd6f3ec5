"""The simulation finds the bugs that are put into the core and the SDK on purpose."""

import pytest

from tests.simulation.mutants import MUTANTS, planted
from tests.simulation.run import simulate

SEEDS, STEPS = 300, 40


@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_bug_is_found(name: str) -> None:
    with planted(name):
        assert any(simulate(seed, STEPS).faults for seed in range(SEEDS)), f"{SEEDS} runs do not show that {name}"


def test_a_planted_bug_is_gone_afterwards() -> None:
    for name, (owner, method, _) in MUTANTS.items():
        original = getattr(owner, method)
        with planted(name):
            assert getattr(owner, method) is not original
        assert getattr(owner, method) is original
