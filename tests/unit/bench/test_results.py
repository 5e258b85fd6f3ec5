"""Results survive storing, read as a table, and are held to what is promised."""

from pathlib import Path

import pytest

from tools.benchmark.figures import Figure
from tools.benchmark.markdown import render
from tools.benchmark.requirements import REQUIREMENTS, START, AtLeast, shortfalls
from tools.benchmark.results import Measure, Results


def measure(title: str, unit: str, **medians: float) -> Measure:
    return Measure(title, unit, {name: Figure.over([value]) for name, value in medians.items()})


def results(*traffic: Measure, footprint: tuple[Measure, ...] = ()) -> Results:
    return Results(
        machine={"cores": "2"},
        versions={"Python": "3.11.7"},
        quick=False,
        rounds=3,
        traffic=traffic,
        footprint=footprint,
    )


def everything(ratio: float, share_of_bound: float) -> Results:
    traffic, footprint = [], []
    for promise in REQUIREMENTS:
        if isinstance(promise, AtLeast):
            less_is_better = "/s" not in promise.unit
            ours = 100 / ratio / promise.ratio if less_is_better else 100 * ratio * promise.ratio
            traffic.append(measure(promise.title, promise.unit, plugmesh=ours, nats=100))
        else:
            footprint.append(measure(promise.title, promise.unit, plugmesh=promise.bound * share_of_bound))
    return results(*traffic, footprint=tuple(footprint))


def test_what_tracing_costs_is_the_median_of_pairs_so_that_a_slow_round_does_not_count() -> None:
    unit = "µs CPU each"
    figures = {"plugmesh": Figure.over([4.0, 8.0, 4.0]), "tracing 1 %": Figure.over([4.4, 8.8, 6.0])}
    cost = Measure("events 1→1", unit, figures)
    assert cost.paired("tracing 1 %").rounds == pytest.approx((1.1, 1.1, 1.5))
    table = render(Results({}, {}, quick=False, rounds=3, traffic=(), footprint=(), tracing=(cost,)))
    assert "| events 1→1, µs CPU each | 4 (4–8) | 6 (4.4–8.8) | 1.10 |" in table


def test_a_ratio_above_one_is_in_our_favour_for_rates_and_for_times() -> None:
    assert measure("events 1→1", "events/s", plugmesh=300, nats=100).ratio("nats") == 3
    assert measure("requests one at a time", "µs p50", plugmesh=100, nats=300).ratio("nats") == 3


def test_there_is_no_ratio_to_a_system_that_was_not_measured() -> None:
    assert measure("events 1→1", "events/s", plugmesh=300).ratio("nats") is None
    assert measure("events 1→1", "events/s", nats=300).ratio("nats") is None


def test_results_read_back_as_they_were_written(tmp_path: Path) -> None:
    written = everything(ratio=1.0, share_of_bound=1.0)
    written.save(tmp_path / "results.json")
    read = Results.load(tmp_path / "results.json")
    assert read == written


def test_results_that_reach_every_promise_exactly_pass() -> None:
    assert shortfalls(everything(ratio=1.0, share_of_bound=1.0)) == []


def test_every_promise_that_is_missed_is_named_with_what_was_reached() -> None:
    missed = shortfalls(everything(ratio=0.9, share_of_bound=1.1))
    assert len(missed) == len(REQUIREMENTS)
    assert "events 1→1 (events/s): 1.35x of nats, but 1.5x is required" in missed
    assert "requests one at a time (µs p50): 0.90x of nats, but 1x is required" in missed
    assert f"{START[0]}: 0.55 s, but at most 0.5 s is allowed" in missed


def test_what_was_not_measured_is_not_reached() -> None:
    alone = results(measure("events 1→1", "events/s", plugmesh=300))
    missed = shortfalls(alone)
    assert len(missed) == len(REQUIREMENTS)
    assert "events 1→1 (events/s): plugmesh and nats were not both measured" in missed
    assert "events 1→8 (deliveries/s): not measured" in missed


def test_the_table_has_a_column_a_system_and_a_ratio_to_each_other_system() -> None:
    figures = {"plugmesh": Figure.over([90_000, 100_000, 123_456]), "nats": Figure.over([50_000])}
    text = render(results(Measure("events 1→1", "events/s", figures)))
    assert "|  | plugmesh | nats | vs nats |" in text
    assert "| events 1→1, events/s | 100 000 (90 000–123 000) | 50 000 | 2.00x |" in text


def test_a_run_without_plugmesh_has_no_ratios() -> None:
    text = render(results(measure("events 1→1", "events/s", nats=1, pyzmq=2)))
    assert "vs" not in text


def test_the_footprint_is_a_table_of_its_own() -> None:
    text = render(results(footprint=(measure(*START, plugmesh=0.321),)))
    assert f"| {START[0]}, s | 0.321 |" in text


@pytest.mark.parametrize(("now", "change"), [(150, "+50 %"), (100, "+0 %"), (80, "-20 %")])
def test_a_baseline_shows_how_the_ratios_moved(now: float, change: str) -> None:
    before = results(measure("events 1→1", "events/s", plugmesh=100, nats=100))
    after = results(measure("events 1→1", "events/s", plugmesh=now, nats=100))
    assert f"| nats | 1.00x | {now / 100:.2f}x | {change} |" in render(after, before)
