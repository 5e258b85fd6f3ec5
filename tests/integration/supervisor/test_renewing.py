"""Reload by name: each step in order, each plugin with its own result, and what others make of a restart."""

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from tests.integration.supervisor.stage import Stage, play, until


async def renew(stage: Stage, *names: str) -> dict[str, str]:
    return {each.plugin_id: each.error for each in await stage.supervisor.renew(names or None)}


def pids(stage: Stage) -> dict[str, int | None]:
    return {view.name: view.pid for view in stage.supervisor.snapshot()}


def test_a_reload_cleans_up_ends_and_registers_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        before = stage.view("hello").pid
        stage.mesh.commands.clear()
        with caplog.at_level(logging.INFO):
            assert await renew(stage, "hello") == {"hello": ""}
        assert [name for _, name in stage.mesh.commands] == [
            "$plugin.stop",
            "$plugin.cleanup",
            "$plugin.initialize",
            "$plugin.start",
        ]
        assert stage.view("hello").pid not in (None, before)
        assert stage.records.statuses("hello") == [1, 2, 0, 1, 2]

    play(tmp_path, scenario)
    assert "reloaded hello successfully after 1 attempt(s)" in caplog.messages


def test_a_failed_cleanup_and_an_exit_that_does_not_come_are_told_and_do_not_stop_the_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        answers = {"cleanup": {"code": "failed", "text": "the disk is full"}}
        stage.add("hello", peer={"answers": answers, "stays": True, "deaf": True}, timeouts={"stop": 0.5})
        await stage.supervisor.start_all()
        assert await renew(stage, "hello") == {"hello": ""}

    play(tmp_path, scenario)
    texts = [text for text in caplog.messages if "hello" in text]
    failed = next(text for text in texts if text.startswith("cleanup failed for hello: "))
    assert "the disk is full" in failed
    assert "wait for old hello to exit timeout, continuing reload" in texts


def test_a_reload_counts_its_attempts_and_ends_with_the_reason_after_three(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        stage.add("hello", peer={"answers": {"start": {"code": "failed", "text": "no port is free"}}})
        (outcome,) = await stage.supervisor.renew(["hello"])
        assert outcome.attempts == 3
        assert outcome.error.startswith("plugin 'hello' did not start in 3 attempts: start: failed: no port is free")
        assert stage.states() == {"hello": "failed"}

    play(tmp_path, scenario)
    assert not [text for text in caplog.messages if text.startswith("reloaded hello")]


def test_of_several_each_has_its_own_result(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("good")
        stage.add("bad")
        stage.add("bystander")
        await stage.supervisor.start_all()
        before = pids(stage)
        stage.add("bad", command=["/no/such/program"])
        results = await renew(stage, "good", "bad", "goood")
        assert results["good"] == ""
        assert results["bad"].startswith("plugin 'bad' did not start: ")
        assert results["goood"] == "there is no plugin 'goood': did you mean 'good'?"
        assert pids(stage)["bystander"] == before["bystander"]

    play(tmp_path, scenario)


def test_all_come_down_before_what_they_need_and_come_up_after_it(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("base")
        stage.add("top", requires=["base"])
        stage.add("parked")
        await stage.supervisor.start_all()
        await stage.supervisor.stop("parked")
        stage.mesh.commands.clear()
        assert await renew(stage) == {"base": "", "top": ""}
        order = [each for each in stage.mesh.commands if each[1] in ("$plugin.cleanup", "$plugin.start")]
        assert order == [
            ("top", "$plugin.cleanup"),
            ("base", "$plugin.cleanup"),
            ("base", "$plugin.start"),
            ("top", "$plugin.start"),
        ]
        assert stage.states()["parked"] == "stopped"

    play(tmp_path, scenario)


def test_a_reload_goes_on_when_nobody_waits_for_it_and_others_are_served_meanwhile(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("slow", peer={"stays": True, "deaf": True})
        stage.add("quick")
        await stage.supervisor.start_all()
        before = pids(stage)
        waiting = asyncio.create_task(stage.supervisor.renew(["slow"]))
        await stage.reaches("slow", "stopping")
        waiting.cancel()
        await stage.supervisor.stop("quick")
        await stage.supervisor.start("quick")
        assert stage.states() == {"slow": "stopping", "quick": "running"}
        await stage.reaches("slow", "running")
        assert pids(stage)["slow"] != before["slow"]

    play(tmp_path, scenario)


def test_a_stop_that_comes_later_wins_over_a_reload(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("slow", peer={"stays": True, "deaf": True}, timeouts={"stop": 0.6})
        await stage.supervisor.start_all()
        reloading = asyncio.create_task(renew(stage, "slow"))
        await stage.reaches("slow", "stopping")
        await stage.supervisor.stop("slow")
        assert await reloading == {"slow": "plugin 'slow' is stopped"}
        assert stage.states() == {"slow": "stopped"}

    play(tmp_path, scenario)


def test_two_reloads_at_once_leave_one_process(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        results = await asyncio.gather(*(renew(stage, "hello") for _ in range(3)))
        assert results == [{"hello": ""}] * 3
        assert len(stage.mesh.pids()) == 1

    play(tmp_path, scenario)


def test_one_that_was_started_by_hand_and_one_that_is_disabled_are_refused_with_the_way_out(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("off", enabled=False)
        await stage.supervisor.start_all()
        with stage.by_hand("hello") as process:
            await stage.reaches("hello", "running")
            results = await renew(stage, "hello", "off")
            assert results["hello"] == "plugin 'hello' was started by hand: start that process anew"
            assert results["off"] == "plugin 'off' is disabled: enable it with `broker enable off`"
            assert process.poll() is None

    play(tmp_path, scenario)


@pytest.mark.parametrize("cause", ["reload", "crash"])
def test_those_that_need_a_restarted_plugin_do_what_their_manifest_says(tmp_path: Path, cause: str) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("base")
        for strategy in ("keep", "restart", "stop"):
            stage.add(strategy, requires=["base"], on_dependency_restart=strategy)
        await stage.supervisor.start_all()
        before = pids(stage)
        if cause == "reload":
            await renew(stage, "base")
        else:
            os.kill(before["base"] or 0, signal.SIGKILL)
        await stage.reaches("stop", "stopped")
        await until(lambda: pids(stage)["restart"] != before["restart"])
        await stage.reaches("restart", "running")
        assert pids(stage)["keep"] == before["keep"]
        assert stage.view("stop").note == (
            "was stopped because base, which it needs, restarts (on_dependency_restart: stop)"
        )

    play(tmp_path, scenario)


def test_sub_plugins_stop_before_their_parent_and_start_after_it_when_it_is_reloaded(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("users")
        stage.add("audit", parent="users")
        stage.add("trail", parent="audit")
        stage.add("staying", parent="users", on_dependency_restart="keep")
        stage.add("web", requires=["users"])
        await stage.supervisor.start_all()
        before = pids(stage)
        stage.mesh.commands.clear()
        assert await renew(stage, "users") == {"users": "", "audit": "", "trail": ""}
        commands = [(name, command.removeprefix("$plugin.")) for name, command in stage.mesh.commands]
        assert [name for name, command in commands if command == "stop"] == ["trail", "audit", "users"]
        assert [name for name, command in commands if command == "start"] == ["users", "audit", "trail"]
        assert {name for name, pid in pids(stage).items() if pid == before[name]} == {"staying", "web"}

    play(tmp_path, scenario)


def test_sub_plugins_restart_when_their_parent_is_back_from_a_crash(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("users")
        stage.add("audit", parent="users")
        stage.add("trail", parent="audit")
        stage.add("web", requires=["users"])
        await stage.supervisor.start_all()
        before = pids(stage)
        os.kill(before["users"] or 0, signal.SIGKILL)
        await until(lambda: pids(stage)["trail"] not in (None, before["trail"]))
        await stage.reaches("trail", "running")
        assert pids(stage)["audit"] != before["audit"]
        assert (pids(stage)["web"], stage.view("audit").restarts) == (before["web"], 0)

    play(tmp_path, scenario)


def test_a_sub_plugin_moves_with_its_parent_even_if_it_was_to_keep_running(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("users")
        stage.add("core")
        stage.add("audit", parent="users")
        stage.add("trail", parent="audit", on_dependency_restart="keep")
        await stage.supervisor.start_all()
        assert stage.view("trail").mount == "users.audit.trail"
        stage.add("audit", parent="core")
        assert await renew(stage, "audit") == {"audit": ""}
        await until(lambda: stage.view("trail").mount == "core.audit.trail" and stage.view("trail").state == "running")

    play(tmp_path, scenario)


def test_one_that_was_stopped_with_another_says_with_which(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("base")
        stage.add("middle", requires=["base"])
        stage.add("top", requires=["middle"], on_dependency_restart="stop")
        await stage.supervisor.start_all()
        await stage.supervisor.stop("base")
        notes = {view.name: view.note for view in stage.supervisor.snapshot()}
        assert notes == {"base": "", **dict.fromkeys(("middle", "top"), "was stopped with base, which it needs")}
        with stage.by_hand("middle"):
            await stage.reaches("middle", "running")
            assert stage.view("middle").note == ""

    play(tmp_path, scenario)
