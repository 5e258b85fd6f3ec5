"""The roster: what it remembers of plugins that were started by hand, and for how long."""

import asyncio
from pathlib import Path

import pytest

from broker.supervisor.errors import SupervisorError
from broker.supervisor.logs import LogWriter
from broker.supervisor.restart import RestartLimits
from broker.supervisor.roster import MAX_DEPARTED, Roster
from broker.supervisor.standing import Standing
from broker.supervisor.states import Trigger
from broker.supervisor.unit import Unit


class Nowhere:
    """Records that keep nothing."""

    def registration(self, plugin_id: str, status: int, error: str | None) -> None: ...

    def described(
        self, plugin_id: str, *, name: str, version: str, description: str, enabled: bool, desired: str
    ) -> None: ...

    def exited(self, plugin_id: str, text: str, restarts: int) -> None: ...

    def exceeded(self, plugin_id: str, limit: str, result: str, text: str) -> None: ...

    def quarantined(self, plugin_id: str, digest: str, version: str, reason: str, *, released: bool) -> None: ...


def roster(tmp_path: Path) -> Roster:
    logs = LogWriter(tmp_path / "logs")

    def make_unit(plugin_id: str) -> Unit:
        return Unit(plugin_id, logs.log_of, Nowhere(), RestartLimits(), lambda: 0.0)

    return Roster([], tmp_path / "config", Standing(tmp_path / "standing.json"), make_unit)


def test_plugins_by_hand_that_left_are_remembered_up_to_a_bound_and_those_that_stay_always(tmp_path: Path) -> None:
    async def scenario() -> None:
        known = roster(tmp_path)
        staying = await known.admit("staying")
        staying.move(Trigger.ADOPT)
        for number in range(3 * MAX_DEPARTED):
            await known.admit(f"guest{number}")
        assert len(list(known)) <= MAX_DEPARTED + 1
        assert known.get("staying") is staying
        assert known.find(f"guest{3 * MAX_DEPARTED - 1}") is not None
        with pytest.raises(SupervisorError, match="there is no plugin 'guest0'"):
            known.get("guest0")

    asyncio.run(scenario())


def test_a_plugin_by_hand_counts_for_those_that_need_it_only_while_it_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        known = roster(tmp_path)
        guest = await known.admit("guest")
        known.replan()
        assert known.plan.problems["guest"].text == "plugin 'guest' was started by hand and is gone"
        guest.move(Trigger.ADOPT)
        known.replan()
        assert known.plan.levels == (("guest",),)

    asyncio.run(scenario())
