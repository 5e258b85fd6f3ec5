"""Before a stop it is known which times would be cut short, and by what."""

from pathlib import Path
from typing import Any

import yaml

from broker.supervisor.discovery import discover
from broker.supervisor.forecast import stop_warnings
from broker.supervisor.plan import make_plan
from broker.supervisor.timing import Timing


def forecast(folder: Path, limit: float, **plugins: dict[str, Any]) -> list[str]:
    for name, manifest in plugins.items():
        (folder / name).mkdir()
        (folder / name / "plugin.yaml").write_text(yaml.safe_dump({"name": name, "version": "1.0", **manifest}))
        (folder / name / "main.py").touch()
    catalog = discover([folder], folder / "config")
    plan = make_plan(each.candidate for each in catalog.plugins)
    return stop_warnings(catalog.plugins, plan, Timing(), limit, "shutdown.timeout_secs = 30")


def test_plugins_that_fit_are_not_mentioned(tmp_path: Path) -> None:
    assert forecast(tmp_path, 12.0, a={}, b={"requires": ["a"]}) == []


def test_a_plugin_that_may_take_longer_than_all_of_them_have_is_named_with_the_way_out(tmp_path: Path) -> None:
    (warning,) = forecast(tmp_path, 12.0, slow={"timeouts": {"stop": 60}})
    assert warning == (
        "plugin 'slow' may take 60 s to stop, but shutdown.timeout_secs = 30 leaves 12.0 s for it, "
        "which then cuts it short: raise that, or lower its timeouts.cleanup and timeouts.stop"
    )


def test_a_cleanup_that_the_stop_around_it_cuts_short_is_named(tmp_path: Path) -> None:
    (warning,) = forecast(tmp_path, 12.0, a={"timeouts": {"cleanup": 8, "stop": 6}})
    assert warning.startswith("plugin 'a': timeouts.cleanup = 8 s leaves nothing of timeouts.stop = 6 s")


def test_plugins_that_stop_one_after_the_other_are_added_up(tmp_path: Path) -> None:
    (warning,) = forecast(tmp_path, 12.0, a={}, b={"requires": ["a"]}, c={"requires": ["b"]}, other={})
    assert warning.startswith("plugins c, then b, then a stop one after the other and may take 15 s")


def test_disabled_plugins_and_those_that_cannot_start_do_not_count(tmp_path: Path) -> None:
    slow = {"timeouts": {"stop": 60}}
    assert forecast(tmp_path, 12.0, off={"enabled": False, **slow}, lost={"requires": ["ghost"], **slow}) == []
