"""Starting: in order, in parallel within bounds, with every failure told by step, attempt and last words."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from broker.supervisor.errors import SupervisorError
from tests.integration.supervisor.stage import QUICK, Stage, play, until

RETRY_SOON = replace(QUICK, attempts=1, restart=replace(QUICK.restart, slow_retry=0.1))


def order_of(stage: Stage, command: str) -> list[str]:
    return [plugin_id for plugin_id, name in stage.mesh.commands if name == f"$plugin.{command}"]


def test_a_plugin_is_registered_initialized_and_started_and_each_step_is_written_down(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", "1.2", description="greets", config={"greeting": "hi"})
        stage.configure("hello", config={"times": 2})
        await stage.supervisor.start_all()
        view = stage.view("hello")
        assert (view.state, view.desired, view.version, view.managed) == ("running", "running", "1.2", True)
        assert view.pid == stage.mesh.pids()["hello"]
        assert stage.mesh.commands == [("hello", "$plugin.initialize"), ("hello", "$plugin.start")]
        body = {"config": {"greeting": "hi", "times": 2}, "enabled": True}
        assert stage.mesh.bodies["hello", "$plugin.initialize"] == body
        assert stage.records.history == [("hello", 1, None), ("hello", 2, None)]
        assert stage.records.described_as["hello"] == {
            "name": "hello",
            "version": "1.2",
            "description": "greets",
            "enabled": True,
            "desired": "running",
        }

    stage = play(tmp_path, scenario)
    assert stage.records.status["hello"] == (0, None)


def test_plugins_start_after_what_they_need_and_after_what_they_ask_to_follow(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("shop", requires=["users"], after=["stdout"])
        stage.add("users", requires=["logger>=1.0"])
        stage.add("logger")
        stage.add("stdout")
        await stage.supervisor.start_all()
        assert set(stage.states().values()) == {"running"}
        starts = order_of(stage, "start")
        assert starts.index("logger") < starts.index("users") < starts.index("shop")
        assert starts.index("stdout") < starts.index("shop")

    play(tmp_path, scenario)


def test_no_more_plugins_are_on_their_way_up_than_allowed_and_running_ones_do_not_count(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        most = 0

        def count() -> None:
            nonlocal most
            on_their_way = [state for state in stage.states().values() if state not in ("waiting", "running")]
            most = max(most, len(on_their_way))

        stage.mesh.on_expect = count
        for number in range(6):
            stage.add(f"p{number}")
        await stage.supervisor.start_all()
        assert set(stage.states().values()) == {"running"}
        assert most == 2

    play(tmp_path, scenario, max_concurrency=2)


def test_a_plugin_that_exits_at_once_is_tried_three_times_and_every_attempt_is_told(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder("exits_at_once")
        await stage.supervisor.start_all()
        view = stage.view("exits_at_once")
        assert (view.state, view.pid, view.register_status) == ("failed", None, 3)
        lines = view.error.splitlines()
        assert lines[0].startswith(
            "plugin 'exits_at_once' did not start in 3 attempts: register: the process exited with status 1 after 0."
        )
        assert [line.split(":")[0] for line in lines[1:4]] == ["  attempt 1", "  attempt 2", "  attempt 3"]
        assert lines[4] == "the last lines it wrote:"
        assert lines[-1] == "  RuntimeError: the flux capacitor is missing"
        assert stage.records.status["exits_at_once"] == (3, view.error)
        assert 2 not in stage.records.statuses("exits_at_once")
        assert len(stage.records.exits) == 3

    play(tmp_path, scenario)


def test_a_plugin_that_never_registers_is_ended_and_says_how_long_it_was_waited_for(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder("never_registers", timeouts={"register": 1.5})
        await stage.supervisor.start_all()
        assert stage.view("never_registers").error.splitlines() == [
            "plugin 'never_registers' did not start: register: not done within 1.5 s",
            "the last lines it wrote:",
            "  alive, and silent",
        ]

    play(tmp_path, scenario, timing=replace(QUICK, attempts=1))


def test_a_deaf_plugin_whose_start_failed_is_killed(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder("ignores_sigterm", timeouts={"register": 1.5})
        await stage.supervisor.start_all()
        assert "not done within 1.5 s" in stage.view("ignores_sigterm").error
        assert stage.records.exits == [("ignores_sigterm", "was ended by SIGKILL", 0)]

    play(tmp_path, scenario, timing=replace(QUICK, attempts=1))


@pytest.mark.parametrize(("plugin", "left"), [("leaves_children", 2), ("double_forks", 1)])
def test_what_a_failed_plugin_leaves_behind_is_told_and_gone(tmp_path: Path, plugin: str, left: int) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder(plugin)
        await stage.supervisor.start_all()
        assert f"{left} of the processes it left behind had to be killed" in stage.view(plugin).error

    play(tmp_path, scenario)


def test_a_plugin_that_forgot_to_run_is_told_that_it_ended_well_but_too_early(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder("returns_at_once")
        await stage.supervisor.start_all()
        assert "register: the process exited with status 0 after 0." in stage.view("returns_at_once").error

    play(tmp_path, scenario)


def test_a_program_that_cannot_run_is_tried_only_once(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder("cannot_run")
        await stage.supervisor.start_all()
        assert stage.view("cannot_run").error == (
            "plugin 'cannot_run' did not start: register: cannot run ./no-such-program: No such file or directory"
        )
        assert len(stage.records.exits) == 1

    play(tmp_path, scenario)


def test_a_command_that_no_system_can_run_and_a_data_folder_that_cannot_be_made_are_told(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("zero", command=["./a\0b"])
        stage.add("homeless")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "homeless").write_text("in the way")
        await stage.supervisor.start_all()
        assert "cannot run its command: embedded null byte" in stage.view("zero").error
        assert (
            f"cannot make its data directory {tmp_path / 'data' / 'homeless'}: File exists"
            in stage.view("homeless").error
        )

    play(tmp_path, scenario)


def test_a_plugin_that_refuses_its_configuration_fails_with_its_own_reason_and_is_not_tried_again(
    tmp_path: Path,
) -> None:
    async def scenario(stage: Stage) -> None:
        refusal = {"code": "bad_config", "text": "greeting must not be empty"}
        stage.add("hello", peer={"answers": {"initialize": refusal}})
        await stage.supervisor.start_all()
        assert stage.view("hello").error == (
            "plugin 'hello' did not start: initialize: bad_config: greeting must not be empty"
        )
        assert order_of(stage, "initialize") == ["hello"]
        assert stage.records.status["hello"] == (3, stage.view("hello").error)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"start": {"code": "failed", "text": "no database"}}, "start: failed: no database"),
        ({"start": "die"}, "start: the process exited with status 1 after"),
        ({"initialize": "die"}, "initialize: the process exited with status 1 after"),
        ({"start": "hang"}, "start: timeout: no answer to $plugin.start within 0.2 s"),
    ],
)
def test_the_step_that_failed_is_named(tmp_path: Path, answers: dict[str, object], told: str) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"answers": answers}, timeouts={"start": 0.2})
        await stage.supervisor.start_all()
        view = stage.view("hello")
        assert view.error.startswith("plugin 'hello' did not start in 3 attempts: ")
        assert told in view.error
        assert order_of(stage, "initialize") == ["hello"] * 3

    play(tmp_path, scenario)


def test_a_plugin_that_succeeds_at_the_second_attempt_runs_and_its_error_is_cleared(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        program = "import os, sys, pathlib\nmark = pathlib.Path('tried')\n"
        program += "tried = mark.exists()\nmark.touch()\nif not tried: sys.exit('not yet')\n"
        stage.add("hello", command=[sys.executable, "main.py"])
        peer = Path(__file__).with_name("peer.py").read_text()
        (stage.plugins / "hello" / "main.py").write_text(program + peer)
        await stage.supervisor.start_all()
        view = stage.view("hello")
        assert (view.state, view.error, view.restarts) == ("running", "", 0)
        assert stage.records.status["hello"] == (2, None)
        attempts = [error for _, status, error in stage.records.history if status == 1 and error]
        assert attempts[0].startswith("attempt 1: register: the process exited with status 1")

    play(tmp_path, scenario)


def test_a_reason_that_every_attempt_met_is_told_once(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder("never_registers", timeouts={"register": 0.3})
        await stage.supervisor.start_all()
        lines = stage.view("never_registers").error.splitlines()
        assert lines[0] == ("plugin 'never_registers' did not start in 3 attempts: register: not done within 0.3 s")
        assert not [line for line in lines if line.startswith("  attempt")]

    play(tmp_path, scenario)


def test_a_refused_registration_is_part_of_the_reason(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.mesh.admits = False
        stage.add("hello")
        await stage.supervisor.start_all()
        assert "the broker refused its registration: shutting_down: nobody is admitted" in stage.view("hello").error

    play(tmp_path, scenario)


def test_bad_plugins_fail_each_with_its_reason_and_the_others_run(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("good")
        stage.add("logger", "1.4.2")
        stage.add("newer", requires=["logger>=2.0"])
        stage.add("app", requires=["newer"])
        stage.add("lonely", requires=["nobody"])
        stage.add("egg", requires=["hen"])
        stage.add("hen", requires=["egg"])
        (stage.plugins / "broken").mkdir()
        (stage.plugins / "broken" / "plugin.yaml").write_text("name: [")
        await stage.supervisor.start_all()
        running = {name for name, state in stage.states().items() if state == "running"}
        assert running == {"good", "logger"}
        origin = stage.plugins / "logger"
        wrong = f"plugin 'newer' needs logger>=2.0 but logger 1.4.2 is installed (from {origin})"
        assert stage.view("newer").error == wrong
        assert stage.view("app").error == f"plugin 'app' needs newer, which cannot start (app → newer): {wrong}"
        assert stage.view("lonely").error.endswith("no plugin 'nobody' is installed; install it")
        assert "egg → hen → egg" in stage.view("egg").error
        assert "plugin.yaml:2: is not YAML" in stage.view("broken").error
        for name, state in stage.states().items():
            assert stage.records.status[name][0] == (2 if state == "running" else 3)

    play(tmp_path, scenario)


def test_those_that_need_a_plugin_that_does_not_come_up_get_the_chain(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("logger", peer={"answers": {"initialize": {"code": "bad_config", "text": "no path"}}})
        stage.add("users", requires=["logger"])
        stage.add("shop", requires=["users"])
        stage.add("other")
        await stage.supervisor.start_all()
        assert stage.states() == {"logger": "failed", "users": "failed", "shop": "failed", "other": "running"}
        assert stage.view("shop").error == (
            "plugin 'shop' needs users, which cannot start (shop → users → logger): "
            "plugin 'logger' did not start: initialize: bad_config: no path"
        )

    play(tmp_path, scenario)


def test_when_the_missing_one_comes_up_those_that_waited_for_it_start(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("logger", peer={"answers": {"start": {"code": "failed", "text": "disk full"}}})
        stage.add("users", requires=["logger"])
        stage.add("shop", requires=["users"])
        await stage.supervisor.start_all()
        assert set(stage.states().values()) == {"failed"}
        stage.add("logger")
        await stage.supervisor.start("logger")
        await stage.reaches("shop", "running")
        assert stage.view("shop").error == ""

    play(tmp_path, scenario)


def test_a_disabled_plugin_is_shown_as_disabled_and_a_start_of_it_says_so(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        stage.configure("hello", enabled=False)
        await stage.supervisor.start_all()
        assert (stage.view("hello").state, stage.view("hello").enabled) == ("disabled", False)
        assert stage.records.described_as["hello"]["enabled"] is False
        with pytest.raises(SupervisorError, match="is disabled: enable it with `broker enable hello`") as refused:
            await stage.supervisor.start("hello")
        assert refused.value.code == "disabled"
        assert stage.records.status["hello"] == (3, refused.value.text)
        assert stage.view("hello").state == "disabled"
        stage.configure("hello", enabled=True)
        await stage.supervisor.start("hello")
        assert stage.view("hello").state == "running"
        assert stage.records.history[-1] == ("hello", 2, None)

    play(tmp_path, scenario)


def test_a_failed_plugin_that_is_disabled_then_is_not_tried_again(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"answers": {"start": {"code": "failed", "text": "no"}}})
        stage.add("other")
        await stage.supervisor.start("other")
        with pytest.raises(SupervisorError, match="start: failed: no"):
            await stage.supervisor.start("hello")
        stage.configure("hello", enabled=False)
        await stage.supervisor.start("other")
        assert stage.states() == {"hello": "disabled", "other": "running"}
        tries = len(order_of(stage, "start"))
        # Long enough for the retry that had been planned, as the next test shows.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await until(lambda: len(order_of(stage, "start")) > tries)

    play(tmp_path, scenario, timing=RETRY_SOON)


def test_a_start_that_failed_is_tried_again_slowly(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", peer={"answers": {"start": {"code": "failed", "text": "no"}}})
        with pytest.raises(SupervisorError, match="start: failed: no"):
            await stage.supervisor.start("hello")
        async with asyncio.timeout(0.5):
            await until(lambda: len(order_of(stage, "start")) > 1)

    play(tmp_path, scenario, timing=RETRY_SOON)


def test_a_folder_that_is_gone_is_forgotten_when_its_plugin_has_stopped(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        stage.add("other")
        await stage.supervisor.start_all()
        (stage.plugins / "hello" / "plugin.yaml").unlink()
        await stage.supervisor.start("other")
        assert stage.view("hello").state == "running"
        await stage.supervisor.stop("hello")
        with pytest.raises(SupervisorError, match="there is no plugin 'hello': known are other"):
            await stage.supervisor.start("hello")

    play(tmp_path, scenario)


def test_an_unknown_plugin_is_answered_with_what_was_probably_meant(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        for order in (stage.supervisor.start, stage.supervisor.stop):
            with pytest.raises(SupervisorError, match="there is no plugin 'helo': did you mean 'hello'"):
                await order("helo")

    play(tmp_path, scenario)


def test_start_brings_up_what_is_needed_first_and_fails_with_the_whole_reason(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("logger")
        stage.add("users", requires=["logger"])
        await stage.supervisor.start("users")
        assert stage.states() == {"logger": "running", "users": "running"}
        stage.add("late", requires=["nobody"])
        with pytest.raises(SupervisorError, match="needs nobody but no plugin 'nobody' is installed") as refused:
            await stage.supervisor.start("late")
        assert refused.value.code == "failed"

    play(tmp_path, scenario)


def test_giving_up_on_a_start_does_not_stop_it(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        waiting = asyncio.create_task(stage.supervisor.start("hello"))
        await stage.reaches("hello", "registering")
        waiting.cancel()
        await stage.reaches("hello", "running")

    play(tmp_path, scenario)


def test_a_changed_configuration_counts_from_the_next_start(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello", config={"a": 1})
        await stage.supervisor.start_all()
        await stage.supervisor.stop("hello")
        stage.configure("hello", config={"a": 2})
        await stage.supervisor.start("hello")
        assert stage.mesh.bodies["hello", "$plugin.initialize"] == {"config": {"a": 2}, "enabled": True}

    play(tmp_path, scenario)


def test_a_plugin_is_registered_within_half_a_second_of_its_start(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        times = []
        # The best of three, for the machine may be busy with other things.
        for name in ("a", "b", "c"):
            stage.add(name)
            began = loop.time()
            await stage.supervisor.start(name)
            times.append(loop.time() - began)
        assert min(times) < 0.5

    play(tmp_path, scenario)


def test_what_a_plugin_writes_is_in_its_log_with_the_time_before_each_line(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder("exits_at_once")
        await stage.supervisor.start_all()

    play(tmp_path, scenario)
    lines = (tmp_path / "logs" / "exits_at_once.log").read_text().splitlines()
    assert lines[0].endswith("Z about to fail")
    assert lines[0][4] == lines[0][7] == "-"


def test_a_flood_is_counted_in_what_is_told_of_the_plugin(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add_folder("floods_stdout", timeouts={"register": 4})
        start = asyncio.create_task(stage.supervisor.start_all())
        await until(lambda: "floods_stdout" in stage.states() and stage.view("floods_stdout").log_dropped > 10_000)
        await stage.supervisor.stop("floods_stdout")
        await start

    play(tmp_path, scenario)
