"""The alert rules and the dashboard that are shipped: they load, and speak of metrics that exist."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.telemetry import metrics
from tests.promtool import promtool

__all__ = ["promtool"]

FOLDER = Path(__file__).parents[3] / "tools" / "alerts"
RULES, CASES, DASHBOARD = (
    FOLDER / name for name in ("plugmesh.rules.yaml", "plugmesh.test.yaml", "plugmesh.dashboard.json")
)
METRIC = re.compile(r"\bplugmesh_\w+")
# Of whatever the labels of a rule say, these come from our metrics, or from Prometheus itself.
LABELS = {"plugin", "process", "instance", "limit"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> list[str]:
    found = [rule["expr"] for rule in rules()]
    found += [target["expr"] for panel in panels() for target in panel["targets"]]
    found += [each["definition"] for each in json.loads(DASHBOARD.read_text())["templating"]["list"][1:]]
    return found


def test_every_metric_that_is_used_exists() -> None:
    used = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert len(used) > 20
    assert used <= metrics.names()


def test_counters_are_read_as_rates_and_gauges_are_not() -> None:
    for expression in expressions():
        for name in METRIC.findall(expression):
            counted = re.search(rf"(rate|increase)\({name}\b", expression) is not None
            wanted = name.endswith("_total") and name != "plugmesh_database_writes_lost_total"
            assert counted == wanted or name == "plugmesh_database_writes_lost_total", expression


@pytest.mark.parametrize(
    "name",
    [
        "PlugmeshRegistrationFailed",
        "PlugmeshShutdownOverdue",
        "PlugmeshPluginDown",
        "PlugmeshEventsDropped",
        "PlugmeshSlowConsumer",
    ],
)
def test_what_must_be_told_has_an_alert(name: str) -> None:
    assert name in [rule["alert"] for rule in rules()]


def test_each_alert_says_what_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "action"}
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= LABELS
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_an_alert_about_a_plugin_names_it() -> None:
    for rule in rules():
        if "plugmesh_plugin_" in rule["expr"]:
            assert "{{ $labels.plugin }}" in rule["annotations"]["summary"], rule["alert"]


def test_the_dashboard_has_a_place_for_every_panel() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))


def test_promtool_takes_the_rules_and_they_fire(promtool: str) -> None:
    for verb, file in (("check", RULES), ("test", CASES)):
        done = subprocess.run([promtool, verb, "rules", file], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
