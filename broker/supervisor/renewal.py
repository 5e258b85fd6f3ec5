"""Reload of plugins by name: cleanup command, terminate, wait, remove from the registry, register again (PLG-6)."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from broker.supervisor.lives import Lives
from broker.supervisor.roster import Roster
from broker.supervisor.states import State
from broker.supervisor.unit import Unit

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of one plugin in a reload.

    Args:
        attempts: how often its start was tried.
        error: why it does not run; empty when it does.
    """

    plugin_id: str
    attempts: int = 0
    error: str = ""


class Renewal:
    """One reload of one or several plugins; each goes its own way, and none waits for one it has no business with.

    Args:
        order: the number of the order that asked for it.
    """

    def __init__(self, roster: Roster, lives: Lives, order: int) -> None:
        self._roster = roster
        self._lives = lives
        self._order = order
        self._down: dict[Unit, asyncio.Event] = {}
        self._tasks: dict[Unit, asyncio.Task[Renewed]] = {}

    async def run(self, units: Sequence[Unit]) -> list[Renewed]:
        """Reloads them: those that need others go down first and come up last.

        Args:
            units: in start order.
        """
        self._down = {unit: asyncio.Event() for unit in units}
        self._tasks = {unit: self._lives.own(self._renew(unit)) for unit in units}
        return list(await asyncio.gather(*self._tasks.values()))

    async def _renew(self, unit: Unit) -> Renewed:
        try:
            return await self._one(unit)
        except Exception as error:
            # A defect of ours; the others are reloaded all the same.
            logger.exception("reloading plugin %s failed", unit.plugin_id)
            return Renewed(unit.plugin_id, error=f"reloading plugin {unit.plugin_id!r} failed: {error!r}")
        finally:
            self._down[unit].set()

    async def _one(self, unit: Unit) -> Renewed:
        for other, down in self._down.items():
            if unit in self._lives.before(other):
                await down.wait()
        if reason := _cannot(unit):
            return Renewed(unit.plugin_id, error=reason)
        await self._take_down(unit)
        earlier = [self._tasks[other] for other in self._lives.before(unit) if other in self._tasks]
        if earlier:
            await asyncio.wait(earlier)
        return await self._bring_up(unit)

    async def _take_down(self, unit: Unit) -> None:
        name = unit.plugin_id
        if stops := self._lives.has_gone_down(unit):
            await asyncio.wait(stops)
        unit.was_killed = False
        if left := await self._lives.end(unit, inf):
            logger.error("reloading %s: %s", name, left)
        if unit.was_killed:
            logger.warning("wait for old %s to exit timeout, continuing reload", name)
        self._down[unit].set()

    async def _bring_up(self, unit: Unit) -> Renewed:
        name = unit.plugin_id
        await self._roster.refresh(unit)
        if self._roster.find(name) is not unit:
            return Renewed(name, error=f"plugin {name!r} has been stopped: its folder is gone")
        unit.attempts = 0
        await self._lives.begin(unit, self._order)
        await unit.settled.wait()
        if unit.state is not State.RUNNING:
            return Renewed(name, unit.attempts, unit.error or f"plugin {name!r} is {unit.state}")
        logger.info("reloaded %s successfully after %d attempt(s)", name, unit.attempts)
        return Renewed(name, unit.attempts)


def _cannot(unit: Unit) -> str:
    name = unit.plugin_id
    if unit.installed is None or (unit.active and not unit.managed):
        return f"plugin {name!r} was started by hand: start that process anew"
    if unit.state is State.DISABLED:
        return f"plugin {name!r} is disabled: enable it with `broker enable {name}`"
    return ""
