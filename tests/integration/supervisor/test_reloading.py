"""Reloading: what the folders say now is compared with what runs, and only what is affected is touched."""

import re
import shutil
from pathlib import Path

from tests.integration.supervisor.stage import Stage, play


async def reload(stage: Stage) -> dict[str, tuple[str, str]]:
    return {each.plugin_id: (each.result, each.text) for each in await stage.supervisor.reload()}


def pids(stage: Stage) -> dict[str, int | None]:
    return {view.name: view.pid for view in stage.supervisor.snapshot()}


def test_what_has_not_changed_is_left_alone(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        before = pids(stage)
        assert await reload(stage) == {"hello": ("unchanged", "")}
        assert pids(stage) == before

    play(tmp_path, scenario)


def test_a_new_folder_is_started_and_one_that_is_gone_is_stopped(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("old")
        await stage.supervisor.start_all()
        stage.add("new")
        shutil.rmtree(stage.plugins / "old")
        assert await reload(stage) == {
            "new": ("applied", "started: it is new"),
            "old": ("applied", "stopped: its folder is gone"),
        }
        assert stage.states() == {"new": "running"}

    play(tmp_path, scenario)


def test_a_new_configuration_restarts_its_plugin_and_those_that_need_it_and_no_other(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("base")
        stage.add("top", requires=["base"])
        stage.add("other")
        await stage.supervisor.start_all()
        before = pids(stage)
        stage.configure("base", config={"colour": "blue"})
        assert await reload(stage) == {
            "base": ("applied", "restarted: new config"),
            "other": ("unchanged", ""),
            "top": ("applied", "restarted with base, which it needs"),
        }
        after = pids(stage)
        assert after["other"] == before["other"]
        assert after["base"] not in (None, before["base"])
        assert after["top"] not in (None, before["top"])

    play(tmp_path, scenario)


def test_a_plugin_is_disabled_and_enabled_again(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        stage.configure("hello", enabled=False)
        assert await reload(stage) == {"hello": ("applied", "stopped: it is disabled")}
        assert stage.states() == {"hello": "disabled"}
        stage.configure("hello", enabled=True)
        assert await reload(stage) == {"hello": ("applied", "started: it is enabled")}
        assert stage.states() == {"hello": "running"}

    play(tmp_path, scenario)


def test_a_manifest_that_has_become_unusable_leaves_its_plugin_running_as_it_was(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        before = pids(stage)
        stage.configure("hello", nonsense=1)
        result, text = (await reload(stage))["hello"]
        assert result == "failed"
        assert text.startswith("goes on as it was started, because ")
        assert "nonsense" in text
        assert pids(stage) == before

    play(tmp_path, scenario)


def test_times_take_effect_without_a_restart(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"stays": True, "deaf": True})
        await stage.supervisor.start_all()
        before = pids(stage)
        stage.configure("hello", timeouts={"stop": 0.3})
        assert await reload(stage) == {"hello": ("applied", "taken in: new timeouts")}
        assert pids(stage) == before
        await stage.supervisor.stop("hello")
        assert re.search(r"did not end within 0\.\d s", stage.view("hello").last_exit)

    play(tmp_path, scenario)


def test_a_plugin_that_had_failed_is_tried_with_its_new_configuration(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", command=["/no/such/program"])
        await stage.supervisor.start_all()
        assert stage.states() == {"hello": "failed"}
        stage.add("hello")
        result, text = (await reload(stage))["hello"]
        assert (result, text) == ("applied", "started: new command")
        assert stage.states() == {"hello": "running"}

    play(tmp_path, scenario)


def test_a_plugin_that_the_operator_stopped_stays_stopped(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        await stage.supervisor.stop("hello")
        stage.configure("hello", config={"colour": "blue"})
        assert await reload(stage) == {"hello": ("applied", "taken in: it stays stopped, as it was told to")}
        assert stage.states() == {"hello": "stopped"}

    play(tmp_path, scenario)


def test_one_that_does_not_come_up_with_its_new_configuration_is_told_with_the_reason(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        stage.add("hello", command=["/no/such/program"])
        result, text = (await reload(stage))["hello"]
        assert result == "failed"
        assert text.startswith("restarted: new command, but plugin 'hello' did not start: ")

    play(tmp_path, scenario)


def test_one_that_was_started_by_hand_has_to_be_restarted_by_hand(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        with stage.by_hand("hello"):
            await stage.reaches("hello", "running")
            stage.add("hello")
            assert (await reload(stage))["hello"] == (
                "needs restart",
                "it was started by hand: start that process anew",
            )
            assert stage.states() == {"hello": "running"}
            await stage.supervisor.stop("hello")

    play(tmp_path, scenario)
