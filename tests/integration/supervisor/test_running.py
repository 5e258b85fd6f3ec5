"""Running: crashes and lost sessions, restarts within their budget, and plugins that were started by hand."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from broker.supervisor.errors import SupervisorError
from broker.supervisor.restart import RestartLimits
from tests.integration.supervisor.stage import QUICK, Stage, play, until

SLOW_RETRY = replace(QUICK, restart=RestartLimits(shortest=0.01, longest=0.02, budget=2, slow_retry=0.3))


def starts(stage: Stage, plugin_id: str) -> int:
    return stage.mesh.commands.count((plugin_id, "$plugin.start"))


def test_a_plugin_that_crashes_is_started_again_and_the_count_and_reason_are_kept(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        first = stage.view("hello").pid
        assert first
        os.kill(first, signal.SIGKILL)
        await until(lambda: starts(stage, "hello") == 2)
        view = await stage.reaches("hello", "running")
        assert view.pid != first
        assert (view.restarts, view.last_exit, view.error) == (1, "was ended by SIGKILL", "")
        assert stage.records.exits == [("hello", "was ended by SIGKILL", 0)]
        assert stage.records.statuses("hello") == [1, 2, 1, 2]
        between = stage.records.history[2][2]
        assert between
        assert between.startswith("plugin 'hello' was ended by SIGKILL after 0.")

    play(tmp_path, scenario)


def test_a_plugin_that_keeps_crashing_fails_after_five_restarts_and_shows_its_last_lines(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"crashes": 7})
        await stage.supervisor.start_all()
        view = await stage.reaches("hello", "failed")
        assert starts(stage, "hello") == 6
        assert view.restarts == 5
        summary, *rest = view.error.splitlines()
        assert summary.startswith("plugin 'hello' exited with status 7 after 0.")
        assert summary.endswith("(more than 5 restarts in 60 s)")
        assert rest == ["the last lines it wrote:", "  crashing"]
        assert stage.records.status["hello"] == (3, view.error)

    play(tmp_path, scenario)


def test_after_the_budget_it_is_tried_again_slowly(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"crashes": 7})
        await stage.supervisor.start_all()
        await stage.reaches("hello", "failed")
        assert starts(stage, "hello") == 3
        stage.add("hello")
        await until(lambda: starts(stage, "hello") > 3)

    play(tmp_path, scenario, timing=SLOW_RETRY)


@pytest.mark.parametrize(
    ("policy", "status", "state", "registration"),
    [("never", 1, "failed", 3), ("never", 0, "stopped", 0), ("on-failure", 0, "stopped", 0)],
)
def test_a_plugin_is_left_alone_when_its_policy_says_so(
    tmp_path: Path, policy: str, status: int, state: str, registration: int
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"crashes": status}, restart=policy)
        await stage.supervisor.start_all()
        view = await stage.reaches("hello", state)
        assert starts(stage, "hello") == 1
        assert (view.register_status, view.restarts) == (registration, 0)
        assert view.last_exit == f"exited with status {status}"

    play(tmp_path, scenario)


def test_an_operators_start_ends_the_wait_for_a_restart(tmp_path: Path) -> None:
    timing = replace(QUICK, restart=RestartLimits(shortest=3600.0, longest=3600.0))

    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        os.kill(stage.mesh.pids()["hello"], signal.SIGKILL)
        await stage.reaches("hello", "backoff")
        await stage.supervisor.start("hello")
        assert stage.view("hello").state == "running"

    play(tmp_path, scenario, timing=timing)


def test_those_that_need_a_crashed_plugin_keep_running(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("logger")
        stage.add("users", requires=["logger"])
        await stage.supervisor.start_all()
        pid = stage.mesh.pids()["users"]
        os.kill(stage.mesh.pids()["logger"], signal.SIGKILL)
        await until(lambda: starts(stage, "logger") == 2)
        await stage.reaches("logger", "running")
        assert stage.view("users").pid == pid
        assert stage.view("users").state == "running"

    play(tmp_path, scenario)


def test_a_crashed_plugin_takes_its_children_with_it(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"forks": True})
        await stage.supervisor.start_all()
        os.kill(stage.mesh.pids()["hello"], signal.SIGKILL)
        await until(lambda: starts(stage, "hello") == 2)
        expected = "was ended by SIGKILL; 1 of the processes it left behind had to be killed"
        assert stage.records.exits[0] == ("hello", expected, 0)
        await stage.reaches("hello", "running")

    play(tmp_path, scenario)


def test_a_plugin_whose_session_is_lost_may_register_again_and_is_not_restarted(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"loses": True, "reconnects": True})
        await stage.supervisor.start_all()
        pid = stage.view("hello").pid
        await until(lambda: starts(stage, "hello") == 2)
        view = await stage.reaches("hello", "running")
        assert (view.pid, view.restarts) == (pid, 0)
        assert stage.records.statuses("hello") == [1, 2, 1, 2]

    play(tmp_path, scenario)


def test_a_plugin_whose_session_does_not_come_back_is_restarted(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"loses": True, "stays": True}, timeouts={"register": 0.5})
        await stage.supervisor.start_all()
        view = await stage.reaches("hello", "backoff")
        assert "plugin 'hello' lost its session (lost: the connection was closed) and did not get another" in view.error
        assert "register: not done within 0.5 s" in view.error

    play(tmp_path, scenario)


def test_a_plugin_started_by_hand_is_initialized_started_and_never_killed(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        stage.configure("guest", config={"a": 1})
        with stage.by_hand("guest", {"stays": True}) as process:
            view = await stage.reaches("guest", "running")
            assert (view.managed, view.pid, view.register_status) == (False, None, 2)
            assert stage.mesh.bodies["guest", "$plugin.initialize"] == {"config": {"a": 1}, "enabled": True}
            await stage.supervisor.stop("guest")
            assert [name for _, name in stage.mesh.commands[2:]] == ["$plugin.stop", "$plugin.cleanup"]
            assert stage.view("guest").state == "stopped"
            assert process.poll() is None
            process.kill()

    play(tmp_path, scenario)


def test_a_plugin_started_by_hand_goes_on_when_all_is_stopped(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        with stage.by_hand("guest") as process:
            await stage.reaches("guest", "running")
            assert await stage.supervisor.stop_all(5.0) == []
            assert (stage.view("guest").state, stage.records.status["guest"]) == ("stopped", (0, None))
            assert process.poll() is None
        assert [name for _, name in stage.mesh.commands] == ["$plugin.initialize", "$plugin.start"]


def test_a_further_process_by_hand_goes_on_when_the_brokers_own_is_stopped_with_the_broker(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        with stage.by_hand("hello") as process:
            await until(lambda: starts(stage, "hello") == 2)
            assert await stage.supervisor.stop_all(5.0) == []
            assert process.poll() is None
        assert [name for _, name in stage.mesh.commands].count("$plugin.cleanup") == 1

    play(tmp_path, scenario)


def test_when_a_plugin_started_by_hand_leaves_it_is_stopped_with_the_reason(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        with stage.by_hand("guest") as process:
            await stage.reaches("guest", "running")
            process.kill()
        view = await stage.reaches("guest", "stopped")
        assert view.last_exit == "lost: the connection was closed"
        with pytest.raises(SupervisorError, match="'guest' has no folder here: start it by hand"):
            await stage.supervisor.start("guest")

    play(tmp_path, scenario)


def test_a_plugin_started_by_hand_that_refuses_its_configuration_fails_and_can_be_started_again(
    tmp_path: Path,
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        refusal = {"answers": {"initialize": {"code": "disabled", "text": "not today"}}}
        with stage.by_hand("guest", refusal) as process:
            view = await stage.reaches("guest", "failed")
            assert view.error == ("plugin 'guest', started by hand, did not start: initialize: disabled: not today")
            with pytest.raises(SupervisorError, match="not today"):
                await stage.supervisor.start("guest")
            assert stage.mesh.commands == [("guest", "$plugin.initialize")] * 2
            process.kill()

    play(tmp_path, scenario)


def test_who_comes_before_the_end_of_its_predecessor_was_noted_takes_its_place(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        with stage.by_hand("guest", {"answers": {"initialize": "hang"}}) as first:
            await stage.reaches("guest", "initializing")
            with stage.by_hand("guest") as second:
                await until(lambda: starts(stage, "guest") == 1)
                first.kill()
                view = await stage.reaches("guest", "running")
                assert (view.error, stage.records.status["guest"]) == ("", (2, None))
                second.kill()
                await stage.reaches("guest", "stopped")

    play(tmp_path, scenario)


def test_of_two_processes_by_hand_the_one_that_stays_is_the_plugin(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        with stage.by_hand("guest") as first:
            await stage.reaches("guest", "running")
            with stage.by_hand("guest") as second:
                await until(lambda: starts(stage, "guest") == 2)
                first.kill()
                await until(lambda: stage.view("guest").runs == 2)
                assert (stage.view("guest").state, stage.view("guest").error) == ("running", "")
                second.kill()
                await stage.reaches("guest", "stopped")

    play(tmp_path, scenario)


def test_an_unusable_configuration_of_a_plugin_started_by_hand_is_told(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        (stage.config / "guest.yaml").write_text("enable: true")
        with stage.by_hand("guest") as process:
            await until(lambda: stage.states() and stage.view("guest").error)
            assert "guest.yaml:1: enable: is not a field; did you mean 'enabled'?" in stage.view("guest").error
            assert stage.records.status["guest"][0] == 3
            process.kill()

    play(tmp_path, scenario)


def test_a_plugin_with_a_folder_may_be_started_by_hand_and_later_by_the_broker(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", config={"a": 1})
        await stage.supervisor.start_all()
        await stage.supervisor.stop("hello")
        with stage.by_hand("hello") as process:
            view = await stage.reaches("hello", "running")
            assert (view.managed, view.version) == (False, "1.0")
            assert stage.mesh.bodies["hello", "$plugin.initialize"]["config"] == {"a": 1}
            process.kill()
        await stage.reaches("hello", "stopped")
        await stage.supervisor.start("hello")
        assert stage.view("hello").managed

    play(tmp_path, scenario)


def test_a_further_process_by_hand_is_started_and_cleaned_up_beside_the_brokers_own(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        pid = stage.view("hello").pid
        with stage.by_hand("hello") as process:
            await until(lambda: starts(stage, "hello") == 2)
            view = stage.view("hello")
            assert (view.state, view.managed, view.pid) == ("running", True, pid)
            await stage.supervisor.stop("hello")
            assert await asyncio.to_thread(process.wait, 5.0) == 0

    play(tmp_path, scenario)


def test_a_plugin_by_hand_satisfies_those_that_need_it(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("users", requires=["logger>=1.0"])
        await stage.supervisor.start_all()
        assert stage.view("users").state == "failed"
        with stage.by_hand("logger") as process:
            await stage.reaches("logger", "running")
            await stage.reaches("users", "running")
            process.kill()

    play(tmp_path, scenario)
