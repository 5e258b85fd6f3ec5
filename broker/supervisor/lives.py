"""Begins, ends and takes over the lives of plugins: the steps that every order to the supervisor is made of."""

import asyncio
import itertools
import logging
from collections.abc import Coroutine, Iterable, Sequence
from math import inf
from typing import Any

from broker.supervisor.descent import descend
from broker.supervisor.errors import SupervisorError
from broker.supervisor.keeper import Keeper
from broker.supervisor.restart import OnRestart
from broker.supervisor.roster import Roster
from broker.supervisor.states import Cause, Desired, State, Trigger
from broker.supervisor.stopper import Stopper
from broker.supervisor.unit import Unit

logger = logging.getLogger(__name__)


class Lives:
    """Whoever begins or ends a life holds the lock of its plugin; the work belongs to nobody who asked for it."""

    def __init__(self, roster: Roster, keeper: Keeper, stopper: Stopper) -> None:
        self.closing = False
        self._roster = roster
        self._keeper = keeper
        self._stopper = stopper
        # Orders are numbered as they come in, for one that came earlier may have to wait longer before it is obeyed.
        self._orders = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()

    def next_order(self) -> int:
        """The number of an order that has just come in."""
        return next(self._orders)

    def own(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Runs work that must go on whatever becomes of the one who asked for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel_all(self) -> None:
        """Cancels all such work."""
        for task in list(self._tasks):
            task.cancel()

    def refuse_when_closing(self) -> None:
        """Raises SupervisorError while the broker is stopping."""
        if self.closing:
            raise SupervisorError("shutting_down", "the broker is stopping and starts no plugin any more")

    async def begin(self, unit: Unit, order: int) -> None:
        """Begins the life of a managed plugin, unless it has one; does not wait for anything but its lock."""
        async with unit.lock:
            on_its_way = unit.active and unit.state is not State.BACKOFF
            if self.closing or unit.stop_order > order or on_its_way or unit.installed is None:
                return
            await end_life(unit)
            unit.want(Desired.RUNNING)
            unit.managed = True
            unit.note = ""
            unit.record.forget()
            if problem := self._roster.plan.problems.get(unit.plugin_id):
                unit.fail(problem.text, Cause.MANIFEST if unit.installed.fault else Cause.DEPENDENCY, problem)
            elif unit.enabled:
                unit.move(Trigger.START)
                unit.life = asyncio.create_task(self._keeper.keep(unit, unit.generation))

    async def adopt(self, unit: Unit, session: int, version: str) -> None:
        """Takes in a process that was started by hand, as the plugin itself or as a further process of it."""
        async with unit.lock:
            if self.closing:
                return
            if unit.active or unit.session not in (None, session):
                unit.further[session] = self.own(self._keeper.greet(unit, session))
                return
            await end_life(unit)
            unit.managed, unit.claimed_version = False, version
            unit.note = ""
            unit.want(Desired.RUNNING)
            unit.move(Trigger.ADOPT)
            unit.life = asyncio.create_task(self._keeper.accompany(unit, session))

    async def end(self, unit: Unit, limit: float) -> str:
        """Takes a plugin down within so many seconds; returns what could not be done."""
        async with unit.lock:
            # Again, for a start may have had the lock meanwhile.
            unit.supersede()
            await end_life(unit)
            if unit.active or unit.state is State.FAILED:
                return await self._stopper.bring_down(unit, limit)
        return ""

    async def end_own(self, unit: Unit, limit: float) -> str:
        """Takes a plugin down if the broker has started it; only the end of the broker is no reason to stop others."""
        unit.further.clear()
        if unit.process or not unit.session:
            return await self.end(unit, limit)
        async with unit.lock:
            unit.supersede()
            await end_life(unit)
            unit.let_go()
        return ""

    async def stop(self, unit: Unit, note: str = "") -> tuple[str, ...]:
        """Stops a plugin, before it what needs it; returns the names in that order.

        To give up waiting does not stop the stop.

        Args:
            note: why this one is stopped, if the operator did not say so.
        """
        order = self.next_order()
        units = [unit, *(each for each in self._roster.needing(unit) if each.active)]
        for each in units:
            each.stop_order = order
            each.note = note if each is unit else f"was stopped with {unit.plugin_id}, which it needs"
            # At once for all, so that none of them begins another run while the others are being stopped.
            each.want(Desired.STOPPED)
        await asyncio.shield(self.own(descend(units, self.before, self.end)))
        return tuple(each.plugin_id for each in reversed(units))

    def before(self, unit: Unit) -> Sequence[Unit]:
        """What a plugin comes after."""
        return self._roster.before(unit).all

    def has_come_up(self, unit: Unit) -> None:
        """Starts what could not start because this one did not run, and anew what wants that when it restarts."""
        if unit.installed is None:
            self._roster.replan()
        for other in self._requiring(unit):
            waits = other.state is State.FAILED and other.blocked is not None and other.desired is Desired.RUNNING
            if waits:
                self.own(self.begin(other, self.next_order()))
            elif unit.runs > 1 and other.state is State.RUNNING and self._restarts_with(other, unit):
                self.own(self._restart_with(other, unit))

    def has_gone_down(self, unit: Unit) -> "list[asyncio.Task[Any]]":
        """Stops what wants to be stopped when this one restarts; returns the stops that are under way."""
        stops = []
        for other in self._requiring(unit):
            if other.active and _strategy(other, unit) is OnRestart.STOP:
                note = f"was stopped because {unit.plugin_id}, which it needs, restarts (on_dependency_restart: stop)"
                logger.info("plugin %s %s", other.plugin_id, note)
                stops.append(self.own(self.stop(other, note)))
        return stops

    def with_dependants(self, units: Iterable[Unit]) -> list[Unit]:
        """The units, and those that restart when one of these does, in start order."""
        found = set(units)
        order = self._roster.in_order()
        for other in order:
            required = found.intersection(self._roster.before(other).required)
            if other.active and any(self._restarts_with(other, unit) for unit in required):
                found.add(other)
        return [unit for unit in order if unit in found]

    def _restarts_with(self, unit: Unit, needed: Unit) -> bool:
        # Its services must not stay where its parent was before.
        has_moved = unit.process is not None and unit.process.mount != self._roster.mount(unit.plugin_id)
        return has_moved or _strategy(unit, needed) is OnRestart.RESTART

    async def _restart_with(self, unit: Unit, needed: Unit) -> None:
        order = self.next_order()
        logger.info("plugin %s restarts with %s, which it needs", unit.plugin_id, needed.plugin_id)
        await self.end(unit, inf)
        await self.begin(unit, order)

    def _requiring(self, unit: Unit) -> list[Unit]:
        return [other for other in self._roster if unit in self._roster.before(other).required]


def _strategy(unit: Unit, needed: Unit) -> OnRestart:
    """What a plugin wants to become of it when one that it requires is restarted."""
    if unit.manifest is None or not unit.managed:
        return OnRestart.KEEP
    is_parent = unit.candidate.parent_name == needed.plugin_id
    return unit.manifest.on_dependency_restart or (OnRestart.RESTART if is_parent else OnRestart.KEEP)


async def end_life(unit: Unit) -> None:
    """Takes over from the task that kept a plugin running."""
    life, unit.life = unit.life, None
    if life:
        life.cancel()
        await asyncio.wait({life})
