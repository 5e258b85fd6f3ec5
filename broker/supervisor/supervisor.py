"""Starts, watches and stops all plugins; the one door to this room."""

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from broker.supervisor.confinement import NO_LIMITS, Mode, ResourceLimits
from broker.supervisor.descent import descend
from broker.supervisor.document import BadDocument
from broker.supervisor.errors import SupervisorError
from broker.supervisor.keeper import Keeper
from broker.supervisor.logs import LogWriter
from broker.supervisor.ports import Mesh, Records
from broker.supervisor.process import Surroundings
from broker.supervisor.reload import Outcome, Reload
from broker.supervisor.roster import Roster
from broker.supervisor.slots import Slots
from broker.supervisor.spawner import Spawner
from broker.supervisor.starter import Starter
from broker.supervisor.states import Desired, State, Trigger
from broker.supervisor.stopper import Stopper
from broker.supervisor.timing import Timing
from broker.supervisor.unit import Unit
from broker.supervisor.view import PluginView

logger = logging.getLogger(__name__)


class Supervisor:
    """The plugins of one broker. All methods but kill_all() are for the thread of the event loop.

    Args:
        plugin_dirs: folders that hold plugin folders; of two plugins with one id the first found counts.
        config_dir: holds the operator's file `ID.yaml` of a plugin.
        data_dir: holds a folder for each plugin's own files.
        log_dir: holds `ID.log` with what a plugin writes.
        home: home of the broker.
        endpoint: where plugins connect.
        max_concurrency: how many may be on their way up at the same time.
        timeout: seconds for each step of a start, where a manifest says nothing else.
        most: the limits that no manifest exceeds.
        sandbox: the mode of the sandbox of plugins about which nobody says anything.
        timing: every other figure; `timeout` goes before it.
        environ: the environment that plugins inherit; the broker's own when not given.
        clock: monotonic seconds.
        dice: random numbers from 0 up to 1.
    """

    def __init__(
        self,
        mesh: Mesh,
        records: Records,
        *,
        plugin_dirs: Sequence[Path],
        config_dir: Path,
        data_dir: Path,
        log_dir: Path,
        home: Path,
        endpoint: str,
        max_concurrency: int = 8,
        timeout: float = 10.0,
        most: ResourceLimits = NO_LIMITS,
        sandbox: Mode = "off",
        timing: Timing | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        timing = timing or Timing(step=timeout)
        inherited = dict(os.environ if environ is None else environ)
        around = Surroundings(home, endpoint, data_dir, inherited, most, sandbox)
        self._mesh = mesh
        self._logs = LogWriter(log_dir)
        self._spawner = Spawner()
        self._roster = Roster(
            plugin_dirs,
            config_dir,
            lambda plugin_id: Unit(plugin_id, self._logs.log_of, records, timing.restart, clock),
        )
        self._slots = Slots(max_concurrency)
        self._starter = Starter(mesh, self._spawner, around, timing, self._slots)
        self._keeper = Keeper(self._starter, timing, self._roster.before, self._has_come_up, clock, dice)
        self._stopper = Stopper(mesh, timing)
        # Orders are numbered as they come in, for one that came earlier may have to wait longer before it is obeyed.
        self._orders = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    @property
    def warnings(self) -> list[str]:
        """What seems wrong in the plugin folders without keeping any plugin from running."""
        return list(self._roster.warnings)

    def snapshot(self) -> list[PluginView]:
        """Every plugin that is known, by name."""
        return sorted((unit.view() for unit in self._roster), key=lambda view: view.name)

    async def start_all(self) -> None:
        """Starts every plugin that is enabled and returns when each of them runs or has failed."""
        self._refuse_when_closing()
        try:
            self._spawner.open()
        except (SupervisorError, OSError) as error:
            # Every managed plugin will fail with this reason; those that are started by hand still can register.
            logger.error("plugins cannot be started: %s", error)
        await self._roster.rescan()
        for warning in self.warnings:
            logger.warning("%s", warning)
        order = next(self._orders)
        for unit in self._roster.in_order():
            if unit.enabled and unit.managed:
                await self._begin(unit, order)
        for unit in self._roster:
            await unit.settled.wait()

    async def start(self, name: str) -> None:
        """Starts a plugin after what it needs; the folders are read anew before.

        Returns when it runs. To give up waiting does not stop the start.

        Raises:
            SupervisorError: the name is unknown, it is disabled, or it did not come up; the text says why.
        """
        self._refuse_when_closing()
        order = next(self._orders)
        await self._roster.rescan()
        unit = self._roster.get(name)
        if not unit.managed and unit.session is not None:
            if not unit.active:
                await self._adopt(unit, unit.session)
        else:
            self._refuse_what_cannot_start(unit)
            for each in self._roster.needed_by(unit):
                await self._begin(each, order)
        await unit.settled.wait()
        if unit.state is not State.RUNNING:
            self._refuse_when_closing()
            raise SupervisorError("failed", unit.error or f"plugin {name!r} is {unit.state}")

    async def stop(self, name: str) -> tuple[str, ...]:
        """Stops a plugin, before it what needs it; returns the names in that order.

        To give up waiting does not stop the stop.

        Raises:
            SupervisorError: the name is unknown.
        """
        unit = self._roster.get(name)
        order = next(self._orders)
        units = [unit, *(each for each in self._roster.needing(unit) if each.active)]
        for each in units:
            each.stop_order = order
            # At once for all, so that none of them begins another run while the others are being stopped.
            each.want(Desired.STOPPED)
        await asyncio.shield(self._own(descend(units, self._before, self._stop_one)))
        return tuple(each.plugin_id for each in reversed(units))

    def set_pace(self, max_concurrency: int, timeout: float) -> None:
        """Changes two of the figures given at the beginning, for starts that begin from now on."""
        self._slots.resize(max_concurrency)
        self._starter.set_step(timeout)

    async def reload(self) -> list[Outcome]:
        """Makes the plugins what the folders say now; returns what became of each when they have settled.

        Raises:
            SupervisorError: the broker is stopping.
        """
        self._refuse_when_closing()
        return await Reload(self._roster, self.stop, lambda unit: self._begin(unit, next(self._orders))).run()

    async def stop_all(self, limit: float) -> list[str]:
        """Stops everything in reverse order of dependency, and closes this room for good.

        Plugins that were started by hand go on: they wait for the next broker.

        Args:
            limit: seconds for all of it; plugins deep in the order get their share of it.

        Returns:
            What could not be done, a text each.
        """
        self._closing = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        units = self._roster.in_order()
        for unit in units:
            # What the operator wants of them stays as it is; only what is under way must not go on.
            unit.supersede()
        left: list[str] = await asyncio.shield(self._own(descend(units, self._before, self._stop_own, limit)))
        for task in list(self._tasks):
            task.cancel()
        await self._spawner.close()
        if not await asyncio.to_thread(self._logs.close, max(0.1, deadline - loop.time())):
            left.append("the last lines of plugins were not written to their logs")
        return left

    def kill_all(self) -> None:
        """Kills every managed plugin; for any thread, and for an event loop that hangs."""
        self._spawner.kill_all()

    def session_opened(self, plugin_id: str, session: int) -> None:
        """A plugin that was started by hand has registered."""
        if not self._closing:
            self._own(self._admit(plugin_id, session))

    def session_lost(self, plugin_id: str, session: int, reason: str) -> None:
        """The session of a plugin has ended."""
        unit = self._roster.find(plugin_id)
        if unit is None:
            return
        unit.further.discard(session)
        if unit.session == session:
            unit.detach(reason)

    async def _begin(self, unit: Unit, order: int) -> None:
        """Begins the life of a managed plugin, unless it has one; does not wait for anything but its lock."""
        async with unit.lock:
            on_its_way = unit.active and unit.state is not State.BACKOFF
            if self._closing or unit.stop_order > order or on_its_way or unit.installed is None:
                return
            await _end_life(unit)
            unit.want(Desired.RUNNING)
            unit.managed = True
            unit.record.forget()
            if problem := self._roster.plan.problems.get(unit.plugin_id):
                unit.fail(problem.text, problem)
            elif unit.enabled:
                unit.move(Trigger.START)
                unit.life = asyncio.create_task(self._keeper.keep(unit, unit.generation))

    async def _admit(self, plugin_id: str, session: int) -> None:
        try:
            unit = await self._roster.admit(plugin_id)
        except BadDocument as error:
            unit = self._roster.get(plugin_id)
            unit.refuse(f"plugin {plugin_id!r} was started by hand, but its configuration is unusable: {error}")
            logger.error("%s", unit.error)
            return
        await self._adopt(unit, session)

    async def _adopt(self, unit: Unit, session: int) -> None:
        """Takes in a process that was started by hand, as the plugin itself or as a further process of it."""
        async with unit.lock:
            if self._closing:
                return
            if unit.active or unit.session not in (None, session):
                unit.further.add(session)
                self._own(self._keeper.greet(unit, session))
                return
            await _end_life(unit)
            unit.managed = False
            unit.want(Desired.RUNNING)
            unit.move(Trigger.ADOPT)
            unit.life = asyncio.create_task(self._keeper.accompany(unit, session))

    def _before(self, unit: Unit) -> Sequence[Unit]:
        return self._roster.before(unit).all

    async def _stop_one(self, unit: Unit, limit: float) -> str:
        async with unit.lock:
            # Again, for a start may have had the lock meanwhile.
            unit.supersede()
            await _end_life(unit)
            if unit.active or unit.state is State.FAILED:
                return await self._stopper.bring_down(unit, limit)
        return ""

    async def _stop_own(self, unit: Unit, limit: float) -> str:
        """Stops a plugin if the broker has started it; only the end of the broker is no reason to stop the others."""
        unit.further.clear()
        if unit.process or not unit.session:
            return await self._stop_one(unit, limit)
        async with unit.lock:
            unit.supersede()
            await _end_life(unit)
            unit.let_go()
        return ""

    def _has_come_up(self, unit: Unit) -> None:
        """Starts what could not start because this one did not run."""
        if unit.installed is None:
            self._roster.replan()
        for other in self._roster:
            waits = other.state is State.FAILED and other.blocked is not None and other.desired is Desired.RUNNING
            if waits and unit in self._roster.before(other).required:
                self._own(self._begin(other, next(self._orders)))

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise SupervisorError("shutting_down", "the broker is stopping and starts no plugin any more")

    def _refuse_what_cannot_start(self, unit: Unit) -> None:
        if unit.installed is None:
            text = f"plugin {unit.plugin_id!r} has no folder here: start it by hand, as it was before"
            raise SupervisorError("unavailable", text)
        if not unit.enabled:
            unit.refuse(f"plugin {unit.plugin_id!r} is disabled: set 'enabled: true' in its configuration")
            raise SupervisorError("disabled", unit.error)

    def _own(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Runs work that must go on whatever becomes of the one who asked for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _end_life(unit: Unit) -> None:
    """Takes over from the task that kept a plugin running."""
    life, unit.life = unit.life, None
    if life:
        life.cancel()
        await asyncio.wait({life})
