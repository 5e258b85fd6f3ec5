"""A status as metrics: valid for the strictest reader, complete, and bounded whatever plugins say."""

from typing import Any

import pytest

from broker.telemetry import metrics
from plugin_sdk.wire import packets as p
from tests.core_driver import Mesh
from tests.unit.telemetry import prometheus
from tests.unit.telemetry.document import status, view

ALWAYS = {"responding": True, "shutdown_secs": 0.0, "shutdown_limit_secs": 30.0}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SAID = {
    "events_handled": 6,
    "events_failed": 2,
    "events_filtered": 1,
    "requests_handled": 3,
    "requests_failed": 1,
    "traces_withheld": 7,
    "handling_secs": 2.4,
    "longest_secs": 1.5,
}


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def shown(document: dict[str, Any], accept: str = "") -> str:
    return metrics.encode({**ALWAYS, **document}, accept)[0].decode()


def of(series: prometheus.Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


def saying(mesh: Mesh, stats: dict[str, Any], name: str = "hello") -> dict[str, Any]:
    """A status with a plugin that says this of itself."""
    peer = mesh.plugin(name)
    peer.send(p.Ping(1, stats))
    return status(mesh, view(name, session=peer.number, asked={"memory": 1 << 28}, exceeded={"cpu": 2}))


def test_both_formats_pass_a_strict_parser_and_say_the_same(mesh: Mesh) -> None:
    document = saying(mesh, SAID)
    assert prometheus.read(shown(document)) == prometheus.read_openmetrics(shown(document, OPENMETRICS))


def test_every_metric_that_is_declared_is_there(mesh: Mesh) -> None:
    mesh.client("web").call("nobody.home")
    text = shown(saying(mesh, SAID))
    assert {name for name, _ in prometheus.read(text)} == metrics.names()


def test_figures_of_a_plugin_are_told_and_derived(mesh: Mesh) -> None:
    series = prometheus.read(shown(saying(mesh, SAID)))
    hello = {"plugin": "hello", "process": ""}
    assert of(series, "plugmesh_plugin_events_received_total", **hello) == 9
    assert of(series, "plugmesh_plugin_events_failed_total", **hello) == 2
    assert of(series, "plugmesh_plugin_requests_handled_total", **hello) == 3
    assert of(series, "plugmesh_plugin_handling_mean_seconds", **hello) == pytest.approx(0.2)
    assert of(series, "plugmesh_plugin_handling_longest_seconds", **hello) == 1.5
    assert of(series, "plugmesh_plugin_error_ratio", **hello) == 0.25
    assert of(series, "plugmesh_plugin_traces_withheld_total", **hello) == 7
    assert of(series, "plugmesh_plugin_state", state="running", **hello) == 1


def test_excesses_are_counted_by_limit_from_zero_for_each_that_it_has(mesh: Mesh) -> None:
    series = prometheus.read(shown(saying(mesh, SAID)))
    name, hello = "plugmesh_plugin_limit_exceeded_total", {"plugin": "hello", "process": ""}
    assert (of(series, name, limit="cpu", **hello), of(series, name, limit="memory", **hello)) == (2, 0)
    assert (name, (("limit", "processes"), *hello.items())) not in series


def test_a_plugin_of_another_language_that_tells_only_a_mean_is_understood(mesh: Mesh) -> None:
    series = prometheus.read(shown(saying(mesh, {"requests_handled": 10, "mean_secs": 0.5})))
    assert of(series, "plugmesh_plugin_handling_seconds_total", plugin="hello", process="") == 5.0


@pytest.mark.parametrize(
    "nonsense",
    [float("nan"), float("inf"), -1, True, "many", None, [1], {"a": 1}, 1e308],
    ids=str,
)
def test_nonsense_that_a_plugin_says_harms_nobody(mesh: Mesh, nonsense: Any) -> None:
    document = saying(mesh, dict.fromkeys([*SAID, "events_waiting", "mean_secs", "busy_secs", "busy_in"], nonsense))
    for accept in ("", OPENMETRICS):
        assert "plugmesh_plugin_up" in shown(document, accept)
    prometheus.read_openmetrics(shown(document, OPENMETRICS))


def test_names_and_versions_with_odd_characters_are_escaped(mesh: Mesh) -> None:
    document = status(mesh, view("hello", state="running"))
    document["broker"]["node"] = 'a"b\\c\nd'
    series = prometheus.read(shown(document))
    assert of(series, "plugmesh_build_info", version="1.2.3", node='a"b\\c\nd') == 1


def test_a_process_on_another_machine_has_no_memory_here(mesh: Mesh) -> None:
    peer = mesh.connect(transport="tcp", pid=0, group=0, user="operator").register(name="far", info={"pid": 4711})
    document = status(mesh, view("far", session=peer.number, managed=False))
    series = prometheus.read(shown(document))
    assert ("plugmesh_plugin_memory_bytes", (("plugin", "far"), ("process", ""))) not in series
    assert of(series, "plugmesh_plugin_up", plugin="far", process="") == 1


def test_several_processes_of_a_plugin_are_told_apart(mesh: Mesh) -> None:
    first, _ = mesh.plugin("hello"), mesh.plugin("hello", instance="two")
    series = prometheus.read(shown(status(mesh, view("hello", session=first.number))))
    assert of(series, "plugmesh_plugin_up", plugin="hello", process="two") == 1


def test_more_plugins_than_anybody_has_are_cut_off_and_counted(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_PLUGINS", 3)
    series = prometheus.read(shown(status(mesh, *(view(f"p{number}") for number in range(5)))))
    assert of(series, "plugmesh_plugins") == 5
    assert of(series, "plugmesh_plugins_not_shown") == 2
    assert len([1 for name, _ in series if name == "plugmesh_plugin_up"]) == 3


def test_a_loop_that_does_not_answer_leaves_what_needs_none() -> None:
    text = metrics.encode({**ALWAYS, "responding": False, "shutdown_secs": 31.0}, "")[0].decode()
    series = prometheus.read(text)
    assert {name for name, _ in series} == {
        "plugmesh_responding",
        "plugmesh_shutdown_seconds",
        "plugmesh_shutdown_limit_seconds",
    }
    assert (of(series, "plugmesh_responding"), of(series, "plugmesh_shutdown_seconds")) == (0, 31)
