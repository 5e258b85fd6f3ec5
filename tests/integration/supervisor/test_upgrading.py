"""Upgrades: the new version stands by until it is proven, and one that fails costs nobody anything."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.supervisor.errors import SupervisorError
from broker.supervisor.view import PluginView
from tests.integration.supervisor.stage import QUICK, Stage, play, until

PROVEN_SOON = replace(QUICK, min_uptime=0.2)
HANGS = {"answers": {"health": "hang"}}


def version_2(stage: Stage, peer: dict[str, Any] | None = None, **manifest: Any) -> Path:
    """A folder with another version of hello."""
    return stage.write(stage.home / "v2", "hello", "2.0", peer=peer, **manifest)


async def refused(stage: Stage, folder: Path | None = None, **how: Any) -> str:
    """Upgrades hello, which must fail; returns why."""
    with pytest.raises(SupervisorError) as refusal:
        await stage.supervisor.upgrade("hello", folder, **how)
    return refusal.value.text


async def started(stage: Stage) -> PluginView:
    """Starts version 1 of hello."""
    stage.add("hello")
    await stage.supervisor.start_all()
    return stage.view("hello")


def test_the_new_version_takes_over_and_the_old_one_is_cleaned_up_afterwards(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        before = await started(stage)
        stage.mesh.commands.clear()
        done = await stage.supervisor.upgrade("hello", version_2(stage))
        assert (done.before, done.after, done.running) == ("1.0", "2.0", True)
        after = stage.view("hello")
        assert (after.state, after.version) == ("running", "2.0")
        assert after.pid not in (None, before.pid)
        assert stage.mesh.switched == [(after.session, before.session)]
        orders = [name.removeprefix("$plugin.") for _, name in stage.mesh.commands if name != "$plugin.health"]
        assert orders == ["initialize", "start", "stop", "cleanup"]
        assert stage.mesh.pids() == {"hello": after.pid}
        assert set(stage.records.statuses("hello")[2:]) <= {2}
        assert stage.records.described_as["hello"]["version"] == "2.0"

    play(tmp_path, scenario, timing=PROVEN_SOON)


def test_the_new_version_is_confined_as_its_manifest_and_the_operator_say_before_it_is_proven(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.configure("hello", limits={"open_files": 60})
        before = await started(stage)
        assert (before.in_force or {})["open_files"] == 60
        asked = version_2(stage, limits={"open_files": 500, "file_size": "2M"})
        await stage.supervisor.upgrade("hello", asked)
        after = stage.view("hello")
        assert after.version == "2.0"
        in_force = after.in_force or {}
        assert (in_force["open_files"], in_force["file_size"]) == (60, 2 << 20)

    play(tmp_path, scenario, timing=PROVEN_SOON)


@pytest.mark.parametrize(
    ("peer", "manifest", "reason"),
    [
        ({"answers": {"start": {"code": "failed", "text": "no port is free"}}}, {}, "no port is free"),
        ({"answers": {"initialize": {"code": "bad_config", "text": "colour is bad"}}}, {}, "colour is bad"),
        ({"crashes": 7}, {}, "exited with status 7"),
        ({"loses": True}, {}, "lost its session"),
        ({"answers": {"health": {"ok": {"ok": False, "reason": "no database"}}}}, {}, "is not well: no database"),
        ({}, {"command": ["/no/such/program"]}, "cannot run"),
    ],
)
def test_a_version_that_fails_is_quarantined_and_the_old_one_goes_on_undisturbed(
    tmp_path: Path, peer: dict[str, Any], manifest: dict[str, Any], reason: str
) -> None:
    async def scenario(stage: Stage) -> None:
        before = await started(stage)
        bad = version_2(stage, {"stays": True, **peer} if "loses" in peer else peer, **manifest)
        text = await refused(stage, bad)
        assert text.startswith("plugin 'hello' was not upgraded to 2.0, 1.0 goes on: ")
        assert reason in text
        after = stage.view("hello")
        assert (after.state, after.version, after.pid) == ("running", "1.0", before.pid)
        assert stage.mesh.switched == []
        assert stage.mesh.pids() == {"hello": before.pid}
        assert stage.records.statuses("hello") == [1, 2]
        ((plugin, version, written, released),) = stage.records.quarantine
        assert (plugin, version, released) == ("hello", "2.0", False)
        assert reason in written
        assert reason in after.quarantine[0].reason
        assert "is quarantined since" in await refused(stage, bad)

    timing = replace(PROVEN_SOON, step=2.0)
    play(tmp_path, scenario, timing=timing)


def test_quarantine_is_for_the_content_not_for_the_place(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        folder = version_2(stage, {"crashes": 7})
        await refused(stage, folder)
        version_2(stage)
        assert (await stage.supervisor.upgrade("hello", folder)).after == "2.0"

    play(tmp_path, scenario, timing=PROVEN_SOON)


def test_who_insists_may_try_quarantined_content_again(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        flag = tmp_path / "flag"
        command = ["/bin/sh", "-c", f"test -e {flag} && exec {stage.peer_command()}"]
        folder = version_2(stage, command=command)
        await refused(stage, folder)
        flag.touch()
        assert (await stage.supervisor.upgrade("hello", folder, force=True)).running
        assert stage.view("hello").quarantine == ()
        assert [released for *_, released in stage.records.quarantine] == [False, True]

    play(tmp_path, scenario, timing=PROVEN_SOON)


def test_a_crash_of_the_new_version_after_the_switch_is_an_ordinary_crash(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        await stage.supervisor.upgrade("hello", version_2(stage))
        pid = stage.view("hello").pid
        os.kill(pid or 0, signal.SIGKILL)
        await until(lambda: stage.view("hello").pid not in (None, pid))
        view = await stage.reaches("hello", "running")
        assert (view.version, view.restarts) == ("2.0", 1)

    play(tmp_path, scenario, timing=PROVEN_SOON)


def test_a_crash_of_the_old_version_meanwhile_is_healed_as_ever_and_the_upgrade_goes_on(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        before = await started(stage)
        upgrading = asyncio.create_task(stage.supervisor.upgrade("hello", version_2(stage)))
        await until(lambda: stage.view("hello").note == "upgrade to 2.0: proving")
        os.kill(before.pid or 0, signal.SIGKILL)
        assert (await upgrading).after == "2.0"
        view = await stage.reaches("hello", "running")
        assert view.version == "2.0"
        assert len(stage.mesh.pids()) == 1

    play(tmp_path, scenario, timing=replace(QUICK, min_uptime=0.6))


def test_a_stop_ends_an_upgrade_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        upgrading = asyncio.create_task(stage.supervisor.upgrade("hello", version_2(stage)))
        await until(lambda: stage.view("hello").note == "upgrade to 2.0: proving")
        await stage.supervisor.stop("hello")
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        assert stage.states() == {"hello": "stopped"}
        assert stage.mesh.pids() == {}
        assert stage.view("hello").quarantine == ()

    play(tmp_path, scenario, timing=replace(QUICK, min_uptime=30.0))


def test_a_broker_that_stops_takes_both_versions_down(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        waiting = asyncio.create_task(stage.supervisor.upgrade("hello", version_2(stage)))
        await until(lambda: stage.view("hello").note == "upgrade to 2.0: proving")
        waiting.cancel()

    play(tmp_path, scenario, timing=replace(QUICK, min_uptime=30.0))


def test_the_upgrade_goes_on_when_nobody_waits_for_it_and_there_is_one_at_a_time(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        waiting = asyncio.create_task(stage.supervisor.upgrade("hello", version_2(stage)))
        await until(lambda: stage.view("hello").note)
        assert await refused(stage) == "plugin 'hello' is being upgraded already"
        waiting.cancel()
        await until(lambda: stage.view("hello").version == "2.0")

    play(tmp_path, scenario, timing=PROVEN_SOON)


def test_a_version_that_others_cannot_live_with_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("users", requires=["hello<2"])
        await started(stage)
        text = await refused(stage, version_2(stage))
        assert text.startswith(
            "plugin 'hello' is not upgraded: plugin 'users' needs hello<2 but hello 2.0 is installed"
        )
        other = stage.write(stage.home / "other", "other", "1.0")
        assert "holds plugin 'other', not 'hello'" in await refused(stage, other)
        assert "cannot be read" in await refused(stage, stage.home / "nowhere")
        assert stage.view("hello").quarantine == ()

    play(tmp_path, scenario, timing=PROVEN_SOON)


def test_what_it_was_upgraded_to_is_what_the_next_broker_runs(tmp_path: Path) -> None:
    async def first(stage: Stage) -> None:
        await started(stage)
        await stage.supervisor.upgrade("hello", version_2(stage))
        await stage.supervisor.stop("hello")
        await stage.supervisor.start("hello")
        assert stage.view("hello").version == "2.0"

    async def second(stage: Stage) -> None:
        await stage.supervisor.start_all()
        assert stage.view("hello").version == "2.0"
        stage.add("hello", "1.5")
        await stage.supervisor.renew(["hello"])
        assert stage.view("hello").version == "2.0"
        await stage.supervisor.stop("hello")
        await stage.supervisor.start("hello")
        assert stage.view("hello").version == "1.5"
        assert "has been changed since: that one counts" in stage.supervisor.warnings[0]

    play(tmp_path, first, timing=PROVEN_SOON)
    play(tmp_path, second, timing=PROVEN_SOON)


def test_a_folder_changed_in_place_to_something_bad_is_not_started_by_a_crash_either(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        before = await started(stage)
        stage.add("hello", "2.0", peer={"crashes": 7})
        await refused(stage)
        assert stage.view("hello").pid == before.pid
        os.kill(before.pid or 0, signal.SIGKILL)
        view = await stage.reaches("hello", "failed")
        assert view.error.startswith("plugin 'hello' is not started: version 2.0 (")
        assert "`broker start hello --force`" in view.error
        stage.add("hello", "2.1")
        await stage.supervisor.start("hello")
        assert stage.view("hello").version == "2.1"

    play(tmp_path, scenario, timing=PROVEN_SOON)


def test_a_stopped_plugin_is_upgraded_for_its_next_start(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await started(stage)
        await stage.supervisor.stop("hello")
        assert not (await stage.supervisor.upgrade("hello", version_2(stage))).running
        assert stage.states() == {"hello": "stopped"}
        await stage.supervisor.start("hello")
        assert stage.view("hello").version == "2.0"

    play(tmp_path, scenario, timing=PROVEN_SOON)


def test_a_failed_plugin_is_healed_by_a_better_version(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", command=["/no/such/program"])
        stage.add("users", requires=["hello"])
        await stage.supervisor.start_all()
        assert stage.states() == {"hello": "failed", "users": "failed"}
        await stage.supervisor.upgrade("hello", version_2(stage))
        assert stage.view("hello").state == "running"
        await stage.reaches("users", "running")

    play(tmp_path, scenario, timing=PROVEN_SOON)
