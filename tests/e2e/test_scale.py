"""`tools/scale` measures what it says, here with few of everything; the bounds are for the long form."""

import subprocess
import sys

import pytest

from tools.scaling import chains, idle, packages, peers
from tools.scaling.chains import Shape
from tools.scaling.figures import Figure, ScaleError


def silent(_: str) -> None:
    """Nobody looks on."""


def test_plugins_start_and_stop_in_order_and_not_one_after_the_other() -> None:
    start, stop = chains.measure(silent, Shape(chains=3, depth=2, start=0.3, cleanup=0.2))
    assert start.title == "start of 6 plugins"
    assert start.value >= 2 * 0.3
    assert stop.value >= 2 * 0.2


def test_an_order_that_was_not_kept_is_no_figure() -> None:
    late = {"began": 0.0, "start done": 2.0}
    with pytest.raises(ScaleError, match="chain0-1 began before chain0-0"):
        chains.check_start({"chain0-0": late, "chain0-1": {"began": 1.0, "start done": 3.0}})


def test_peers_of_both_roles_are_registered() -> None:
    figures = peers.measure(silent, 30)
    assert [figure.title for figure in figures] == ["30 registrations of clients", "30 registrations of plugins"]
    assert all(figure.kept for figure in figures)


def test_idle_plugins_cost_something_and_are_watched() -> None:
    (figure,) = idle.measure(silent, 1.0, 3)
    assert figure.unit == "µs of CPU a second"


def test_packages_that_have_not_changed_are_looked_at_again() -> None:
    (figure,) = packages.measure(silent, 5)
    assert (figure.title, figure.kept) == ("rescan of 5 packages", True)


def test_a_figure_is_shown_with_its_bound() -> None:
    assert str(Figure("rescan", 0.5, 1.0, "s", "median")) == "ok   rescan: 0.5 s, at most 1 (median)"
    assert str(Figure("rescan", 1.5, 1.0, "s")) == "MISS rescan: 1.5 s, at most 1"


def test_a_bound_that_is_missed_is_told_by_the_exit_status() -> None:
    code = "from tools.scaling import cli, peers; peers.BOUND_SECS = 0.0; peers.PEERS = 1; cli.main(['peers'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "MISS" in done.stdout
