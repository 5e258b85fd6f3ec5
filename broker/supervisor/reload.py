"""Makes the plugins that run what their folders and their operator's files say now (SHD-1)."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from broker.supervisor.changes import Change, Verb, compare
from broker.supervisor.discovery import Catalog
from broker.supervisor.roster import Roster
from broker.supervisor.states import Desired, State
from broker.supervisor.unit import Unit

logger = logging.getLogger(__name__)

APPLIED, NEEDS_RESTART, UNCHANGED, FAILED = "applied", "needs restart", "unchanged", "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one plugin in a reload: one of the results above, and its story."""

    plugin_id: str
    result: str
    text: str


class Reload:
    """One reading of the folders, and all that follows from it.

    Args:
        stop: stops a plugin and before it what needs it; returns the names.
        begin: begins the start of a plugin.
    """

    def __init__(
        self,
        roster: Roster,
        stop: Callable[[str], Awaitable[tuple[str, ...]]],
        begin: Callable[[Unit], Awaitable[None]],
    ) -> None:
        self._roster = roster
        self._stop = stop
        self._begin = begin
        self._stopped: dict[str, str] = {}

    async def run(self) -> list[Outcome]:
        """Stops, takes in and starts what must be; returns when each of those runs or has failed."""
        catalog = await self._roster.look()
        changes = compare(self._roster, catalog)
        wanted = {unit.plugin_id for unit in self._roster if unit.managed and unit.desired is Desired.RUNNING}
        for change in changes:
            if change.verb in (Verb.STOP, Verb.RESTART):
                await self._take_down(change.plugin_id)
        self._update(changes, catalog)
        self._roster.take_in(catalog)
        begun = {change.plugin_id for change in changes if change.verb in (Verb.START, Verb.RESTART)}
        dropped = {change.plugin_id for change in changes if change.verb is Verb.STOP}
        await self._bring_up(begun | (self._stopped.keys() & wanted) - dropped)
        told = {change.plugin_id for change in changes if change.reason}
        return [*(self._outcome(change) for change in changes if self._is_told(change)), *self._dependants(told)]

    async def _take_down(self, plugin_id: str) -> None:
        unit = self._roster.find(plugin_id)
        if unit and unit.active:
            for name in await self._stop(plugin_id):
                self._stopped.setdefault(name, plugin_id)

    def _update(self, changes: Iterable[Change], catalog: Catalog) -> None:
        found = {each.plugin_id: each for each in catalog.plugins}
        for change in changes:
            unit = self._roster.find(change.plugin_id)
            if change.verb is Verb.UPDATE and unit and unit.active:
                unit.install(found[change.plugin_id])
                unit.describe()

    async def _bring_up(self, names: Iterable[str]) -> None:
        units = [unit for unit in self._roster.in_order() if unit.plugin_id in set(names)]
        for unit in units:
            await self._begin(unit)
        for unit in units:
            await unit.settled.wait()

    def _is_told(self, change: Change) -> bool:
        return change.verb is not Verb.NOTHING or change.plugin_id not in self._stopped

    def _outcome(self, change: Change) -> Outcome:
        name, verb, reason = change.plugin_id, change.verb, change.reason
        unit = self._roster.find(name)
        if verb is Verb.NOTHING:
            return Outcome(name, UNCHANGED, "")
        if verb is Verb.KEEP:
            fault = unit is not None and unit.managed
            return Outcome(name, FAILED if fault else NEEDS_RESTART, reason)
        if verb in (Verb.START, Verb.RESTART):
            return self._come_up(name, unit, f"{verb}ed: {reason}")
        return Outcome(name, APPLIED, f"stopped: {reason}" if verb is Verb.STOP else f"taken in: {reason}")

    def _dependants(self, told: set[str]) -> list[Outcome]:
        return [
            self._come_up(name, self._roster.find(name), f"restarted with {culprit}, which it needs")
            for name, culprit in sorted(self._stopped.items())
            if name not in told
        ]

    def _come_up(self, name: str, unit: Unit | None, text: str) -> Outcome:
        if unit is not None and unit.state is State.RUNNING:
            return Outcome(name, APPLIED, text)
        why = (unit.error.partition("\n")[0] or f"it is {unit.state}") if unit else "it is gone"
        return Outcome(name, FAILED, f"{text}, but {why}")
