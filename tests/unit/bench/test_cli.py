"""The command line of the benchmark: what is asked for is measured, stored, compared and judged."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tools.benchmark.cli import main
from tools.benchmark.results import Results


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--systems", "pyzmq,kafka"), "'kafka' is none of plugmesh, nats, pyzmq"),
        (("--only", "events,latency"), "'latency' is none of events, requests, footprint, tracing"),
        (("--rounds", "0"), "0 is not in the range"),
        (("--baseline", "/nowhere.json"), "does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(arguments: tuple[str, ...], complaint: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output


def test_a_baseline_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"some": "thing"}')
    result = bench("--baseline", str(tmp_path / "other.json"))
    assert result.exit_code == 2
    assert "does not hold results of this benchmark" in " ".join(result.output.split())


def test_a_quick_run_of_one_system_prints_a_table_and_stores_the_results(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    result = bench("--quick", "--systems", "pyzmq", "--only", "requests", "--json", str(file))
    assert result.exit_code == 0, result.output
    assert "| requests one at a time, µs p50 |" in result.output
    stored = Results.load(file)
    assert stored.quick
    assert {measure.title for measure in stored.traffic} == {"requests one at a time", "requests 64 in flight"}
    assert all(figure.median > 0 for measure in stored.traffic for figure in measure.systems.values())
    assert stored.versions["libzmq"]


def test_a_check_that_measures_too_little_fails() -> None:
    result = bench("--quick", "--systems", "pyzmq", "--only", "requests", "--check")
    assert result.exit_code == 1
    assert "not reached: requests 64 in flight (calls/s): plugmesh and nats were not both measured" in result.output
