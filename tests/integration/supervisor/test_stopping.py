"""Stopping: politely first, in reverse order, within its time, and with nothing left whatever a plugin does."""

import asyncio
import logging
import os
import re
import select
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from broker.supervisor.errors import SupervisorError
from tests.integration.supervisor.stage import PATIENCE, QUICK, Stage, play


def cleanups(stage: Stage) -> list[str]:
    return [plugin_id for plugin_id, name in stage.mesh.commands if name == "$plugin.cleanup"]


def test_a_plugin_is_asked_to_stop_and_to_clean_up_and_ends_by_itself(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        assert await stage.supervisor.stop("hello") == ("hello",)
        assert [name for _, name in stage.mesh.commands[2:]] == ["$plugin.stop", "$plugin.cleanup"]
        view = stage.view("hello")
        assert (view.state, view.desired, view.pid, view.last_exit) == (
            "stopped",
            "stopped",
            None,
            "exited with status 0",
        )
        assert stage.records.status["hello"] == (0, None)
        assert stage.records.described_as["hello"]["desired"] == "stopped"

    play(tmp_path, scenario)


def test_cleanups_are_counted_and_so_are_those_that_failed(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("good")
        stage.add("bad", peer={"answers": {"cleanup": {"code": "failed", "text": "disk full"}}})
        await stage.supervisor.start_all()
        for name in ("good", "bad"):
            await stage.supervisor.stop(name)
        figures = stage.supervisor.figures()
        assert (figures.cleanups, figures.cleanups_failed) == (2, 1)

    play(tmp_path, scenario)


def told(caplog: pytest.LogCaptureFixture, plugin_id: str) -> list[str]:
    """What is logged of a plugin's coming and going, with figures for figures that differ in every run."""
    about = [text for text in caplog.messages if text.startswith(f"plugin {plugin_id} ") and "→" not in text]
    return [re.sub(r"\d+\.\d+ s|process \d+", "#", text) for text in about]


@pytest.mark.parametrize(
    ("peer", "end"),
    [
        ({}, "exited with status 0; stopped in #, the last step was the cleanup command"),
        ({"stays": True}, "was ended by SIGTERM; stopped in #, the last step was SIGTERM"),
        (
            {"stays": True, "deaf": True},
            "was ended by SIGKILL: it did not end within # of SIGTERM; stopped in #, the last step was SIGKILL",
        ),
    ],
)
def test_coming_and_going_is_one_line_each_with_the_step_of_the_ladder_that_ended_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, peer: dict[str, object], end: str
) -> None:
    """SHD-4."""
    caplog.set_level(logging.INFO)

    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer=peer, timeouts={"stop": 0.8})
        await stage.supervisor.start_all()
        await stage.supervisor.stop("hello")

    play(tmp_path, scenario)
    assert told(caplog, "hello") == [
        "plugin hello 1.0 is registered and runs: #, # after it was ordered",
        f"plugin hello {end}",
    ]


def test_a_plugin_that_stays_after_cleanup_gets_sigterm(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"stays": True})
        await stage.supervisor.start_all()
        await stage.supervisor.stop("hello")
        assert stage.view("hello").last_exit == "was ended by SIGTERM"

    play(tmp_path, scenario)


def test_a_plugin_that_ignores_everything_is_killed_when_its_time_is_over(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"stays": True, "deaf": True}, timeouts={"stop": 0.8})
        await stage.supervisor.start_all()
        began = asyncio.get_running_loop().time()
        await stage.supervisor.stop("hello")
        assert 0.7 < asyncio.get_running_loop().time() - began < 2.0
        exit_text = stage.view("hello").last_exit
        assert exit_text.startswith("was ended by SIGKILL: it did not end within 0.")
        assert exit_text.endswith("s of SIGTERM")

    play(tmp_path, scenario)


def test_a_cleanup_that_hangs_does_not_use_up_the_time_of_sigterm(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"answers": {"cleanup": "hang"}}, timeouts={"cleanup": 0.2})
        await stage.supervisor.start_all()
        await stage.supervisor.stop("hello")
        assert stage.view("hello").last_exit == "was ended by SIGTERM"

    play(tmp_path, scenario)


def test_a_cleanup_that_fails_is_logged_and_the_stop_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        failure = {"code": "failed", "text": "the file is locked"}
        stage.add("hello", peer={"answers": {"cleanup": failure}})
        await stage.supervisor.start_all()
        await stage.supervisor.stop("hello")
        assert stage.view("hello").state == "stopped"

    play(tmp_path, scenario)
    assert "cleanup failed for hello: cleanup: failed: the file is locked" in caplog.messages


def test_a_plugin_that_dies_in_cleanup_is_stopped_without_a_complaint_about_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"answers": {"cleanup": "die"}})
        await stage.supervisor.start_all()
        await stage.supervisor.stop("hello")
        assert stage.view("hello").last_exit == "exited with status 1"

    play(tmp_path, scenario)
    assert not [text for text in caplog.messages if "not done within" in text]


def test_children_that_a_plugin_leaves_are_killed_with_it(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"forks": True}, timeouts={"stop": 0.5})
        await stage.supervisor.start_all()
        await stage.supervisor.stop("hello")
        assert "1 of the processes it left behind had to be killed" in stage.view("hello").last_exit

    play(tmp_path, scenario)


def test_those_that_need_a_plugin_are_stopped_before_it_and_named(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("logger")
        stage.add("users", requires=["logger"])
        stage.add("shop", requires=["users"])
        stage.add("other")
        await stage.supervisor.start_all()
        assert await stage.supervisor.stop("logger") == ("shop", "users", "logger")
        assert cleanups(stage) == ["shop", "users", "logger"]
        assert stage.view("other").state == "running"

    play(tmp_path, scenario)


def test_all_are_stopped_in_reverse_order_and_independent_ones_together(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("logger")
        stage.add("users", requires=["logger"], peer={"stays": True, "deaf": True}, timeouts={"stop": 0.8})
        stage.add("other", peer={"stays": True, "deaf": True}, timeouts={"stop": 0.8})
        await stage.supervisor.start_all()
        began = asyncio.get_running_loop().time()
        assert await stage.supervisor.stop_all(PATIENCE) == []
        assert asyncio.get_running_loop().time() - began < 1.6
        assert cleanups(stage)[-1] == "logger"
        assert stage.view("logger").desired == "running", "what the operator wants outlives the broker"

    stage = play(tmp_path, scenario)
    assert {status for status, _ in stage.records.status.values()} == {0}


def test_one_limit_holds_for_all_however_deaf_they_are(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        deaf = {"stays": True, "deaf": True}
        stage.add("logger", peer=deaf, timeouts={"stop": 60})
        stage.add("users", requires=["logger"], peer=deaf, timeouts={"stop": 60})
        stage.add("shop", requires=["users"], peer=deaf, timeouts={"stop": 60})
        await stage.supervisor.start_all()
        began = asyncio.get_running_loop().time()
        assert await stage.supervisor.stop_all(2.0) == []
        assert asyncio.get_running_loop().time() - began < 2.5
        assert cleanups(stage) == ["shop", "users", "logger"]

    play(tmp_path, scenario, timing=replace(QUICK, settle=0.05))


def test_a_plugin_on_its_way_up_can_be_stopped_and_does_not_come_up_later(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder("never_registers")
        starting = asyncio.create_task(stage.supervisor.start("never_registers"))
        await stage.reaches("never_registers", "registering")
        await stage.supervisor.stop("never_registers")
        with pytest.raises(SupervisorError, match="plugin 'never_registers' is stopped"):
            await starting
        assert stage.records.statuses("never_registers") == [1, 0]

    play(tmp_path, scenario)


def test_a_plugin_that_waits_for_its_restart_can_be_stopped(tmp_path: Path) -> None:
    timing = replace(QUICK, restart=replace(QUICK.restart, shortest=3600.0, longest=3600.0))

    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        os.kill(stage.mesh.pids()["hello"], signal.SIGKILL)
        await stage.reaches("hello", "backoff")
        await stage.supervisor.stop("hello")
        assert stage.view("hello").state == "stopped"

    play(tmp_path, scenario, timing=timing)


def test_starts_and_stops_of_one_plugin_at_the_same_time_end_as_the_last_one_said(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        orders = []
        for number in range(8):
            order = stage.supervisor.stop if number % 2 else stage.supervisor.start
            orders.append(asyncio.create_task(order("hello")))
            for _ in range(3 * number):
                await asyncio.sleep(0)
        await asyncio.gather(*orders, return_exceptions=True)
        assert stage.view("hello").state == "stopped"
        assert stage.mesh.pids() == {}

    play(tmp_path, scenario)


def test_giving_up_on_a_stop_does_not_leave_it_half_done(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"stays": True, "deaf": True}, timeouts={"stop": 0.8})
        await stage.supervisor.start_all()
        waiting = asyncio.create_task(stage.supervisor.stop("hello"))
        await stage.reaches("hello", "stopping")
        waiting.cancel()
        await stage.reaches("hello", "stopped")

    play(tmp_path, scenario)


def test_a_start_that_the_end_of_the_broker_overtakes_is_refused_for_that_reason(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        stage.add("hello", peer={"answers": {"start": "hang"}})
        starting = asyncio.create_task(stage.supervisor.start("hello"))
        await stage.reaches("hello", "starting")
        await stage.supervisor.stop_all(PATIENCE)
        with pytest.raises(SupervisorError, match="the broker is stopping"):
            await starting

    play(tmp_path, scenario)


def test_nothing_is_started_any_more_once_all_is_being_stopped(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"stays": True})
        await stage.supervisor.start_all()
        stopping = asyncio.create_task(stage.supervisor.stop_all(PATIENCE))
        await stage.reaches("hello", "stopping")
        with pytest.raises(SupervisorError) as refused:
            await stage.supervisor.start("hello")
        assert refused.value.code == "shutting_down"
        assert await stopping == []
        assert stage.view("hello").state == "stopped"

    play(tmp_path, scenario)


def test_all_can_be_stopped_while_they_are_being_started(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(6):
            stage.add(f"p{number}", requires=[f"p{number - 1}"] if number else [])
        starting = asyncio.create_task(stage.supervisor.start_all())
        await stage.reaches("p2", "registering")
        assert await stage.supervisor.stop_all(PATIENCE) == []
        await starting
        assert set(stage.states().values()) == {"stopped"}

    play(tmp_path, scenario)


def test_kill_all_works_from_another_thread_while_the_event_loop_hangs(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"deaf": True, "stays": True}, restart="never")
        await stage.supervisor.start_all()
        handle = os.pidfd_open(stage.mesh.pids()["hello"])
        thread = threading.Thread(target=stage.supervisor.kill_all)
        thread.start()
        # The loop does nothing at all meanwhile; a pidfd is readable when its process has ended.
        assert wait_readable(handle, 5.0)
        thread.join()
        os.close(handle)
        await stage.reaches("hello", "failed")

    play(tmp_path, scenario)


def test_kill_9_of_the_host_of_a_supervisor_leaves_no_process_of_any_plugin(tmp_path: Path) -> None:
    host = Path(__file__).with_name("host.py")

    async def whole() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, host, tmp_path, stdout=asyncio.subprocess.PIPE, cwd=host.parents[3]
        )
        assert process.stdout
        async with asyncio.timeout(PATIENCE):
            pids = [int(pid) for pid in (await process.stdout.readline()).split()]
        assert len(pids) >= 4
        handles = [os.pidfd_open(pid) for pid in pids]
        process.kill()
        await process.wait()
        for handle in handles:
            assert wait_readable(handle, 2.0)
            os.close(handle)

    asyncio.run(whole())


def wait_readable(handle: int, seconds: float) -> bool:
    return bool(select.select([handle], [], [], seconds)[0])
