"""Enable, disable and drain: what the operator says by command holds until he says otherwise."""

from pathlib import Path

import pytest

from broker.supervisor.errors import SupervisorError
from tests.integration.supervisor.stage import Stage, play


def test_a_disabled_plugin_is_stopped_with_what_needs_it_and_stays_so_in_the_next_broker(tmp_path: Path) -> None:
    async def first(stage: Stage) -> None:
        stage.add("base")
        stage.add("top", requires=["base"])
        await stage.supervisor.start_all()
        assert await stage.supervisor.disable("base") == ("top", "base")
        assert stage.states() == {"base": "disabled", "top": "stopped"}
        assert stage.view("base").note == "disabled with `broker disable`"
        with pytest.raises(SupervisorError, match="enable it with `broker enable base`"):
            await stage.supervisor.start("base")

    async def second(stage: Stage) -> None:
        await stage.supervisor.start_all()
        assert stage.states() == {"base": "disabled", "top": "failed"}
        assert "base 1.0 is disabled: enable it" in stage.view("top").error
        await stage.supervisor.enable("base")
        await stage.reaches("top", "running")
        assert stage.view("base").note == ""

    async def third(stage: Stage) -> None:
        await stage.supervisor.start_all()
        assert stage.states() == {"base": "running", "top": "running"}

    for scenario in (first, second, third):
        play(tmp_path, scenario)


def test_enable_goes_before_the_configuration_until_that_agrees(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        stage.configure("hello", enabled=False)
        await stage.supervisor.start_all()
        await stage.supervisor.enable("hello")
        assert stage.states() == {"hello": "running"}
        assert '"hello": true' in (stage.home / "standing.json").read_text()
        stage.configure("hello", enabled=True)
        await stage.supervisor.enable("hello")
        assert '"hello"' not in (stage.home / "standing.json").read_text()

    play(tmp_path, scenario)


def test_one_that_was_started_by_hand_cannot_be_disabled(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.supervisor.start_all()
        with stage.by_hand("hello"):
            await stage.reaches("hello", "running")
            with pytest.raises(SupervisorError, match="was started by hand: stop that process"):
                await stage.supervisor.disable("hello")
            await stage.supervisor.stop("hello")

    play(tmp_path, scenario)


def test_a_broken_file_of_decisions_is_put_aside_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "standing.json").write_text("{not json")

    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        assert stage.states() == {"hello": "running"}
        assert (tmp_path / "standing.broken").read_text() == "{not json"

    play(tmp_path, scenario)


def test_a_plugin_is_drained_and_put_back_without_a_restart(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("hello")
        await stage.supervisor.start_all()
        before = stage.view("hello")
        assert await stage.supervisor.drain("hello", 1.0)
        stage.supervisor.undrain("hello")
        assert stage.mesh.switched == [(None, before.session), (before.session, None)]
        assert stage.view("hello").pid == before.pid
        await stage.supervisor.stop("hello")
        with pytest.raises(SupervisorError, match="is stopped: only one that runs can be drained"):
            await stage.supervisor.drain("hello", 1.0)

    play(tmp_path, scenario)
