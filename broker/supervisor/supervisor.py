"""Starts, watches and stops all plugins; the one door to this room."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from broker import tracepoints
from broker.supervisor.cgroups import Groups
from broker.supervisor.confinement import NO_LIMITS, Mode, ResourceLimits
from broker.supervisor.descent import descend
from broker.supervisor.discovery import Installed
from broker.supervisor.document import BadDocument
from broker.supervisor.enabling import Enabling
from broker.supervisor.errors import SupervisorError
from broker.supervisor.keeper import Keeper
from broker.supervisor.levels import LEVELS
from broker.supervisor.limiter import Limiter
from broker.supervisor.lives import Lives
from broker.supervisor.logs import LogWriter
from broker.supervisor.ports import Mesh, Records
from broker.supervisor.process import Surroundings
from broker.supervisor.quarantine import Quarantine
from broker.supervisor.reload import Outcome, Reload
from broker.supervisor.renewal import Renewal, Renewed
from broker.supervisor.roster import Roster
from broker.supervisor.slots import Slots
from broker.supervisor.spawner import Spawner
from broker.supervisor.standing import Standing
from broker.supervisor.starter import Starter
from broker.supervisor.states import Desired, State
from broker.supervisor.stopper import Stopper
from broker.supervisor.tailing import LogLine, Tail
from broker.supervisor.timing import Timing
from broker.supervisor.unit import Unit
from broker.supervisor.upgrade import Unrecorded, Upgrade, beside_of
from broker.supervisor.upgrades import Upgraded, Upgrades
from broker.supervisor.view import Figures, PluginView
from plugin_sdk.wire import conventions as c

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
        groups: where the kernel keeps limits; they are only watched when not given.
        timing: every other figure; `timeout` goes before it.
        environ: the environment that plugins inherit; the broker's own when not given.
        passed_on: told of everything that a plugin writes.
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
        groups: Groups | None = None,
        timing: Timing | None = None,
        environ: Mapping[str, str] | None = None,
        passed_on: Callable[[str, bytes], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        timing = timing or Timing(step=timeout)
        inherited = dict(os.environ if environ is None else environ)
        around = Surroundings(home, endpoint, data_dir, inherited, most, sandbox, groups, timing.cpu_window)
        self._mesh = mesh
        self._log_dir = log_dir
        self._logs = LogWriter(log_dir, passed_on=passed_on)
        self._spawner = Spawner()
        standing = Standing(home / "standing.json")

        def make_unit(plugin_id: str, kept: Records = records) -> Unit:
            return Unit(plugin_id, self._logs.log_of, kept, timing.restart, clock)

        self._roster = Roster(plugin_dirs, config_dir, standing, make_unit)
        self.limiter = Limiter(self._roster)
        self._quarantine = Quarantine(standing, records)
        self._slots = Slots(max_concurrency)
        self._starter = Starter(mesh, self._spawner, around, timing, self._slots, self._roster.mount)
        keeper = Keeper(
            self._starter,
            timing,
            self._roster.before,
            lambda unit: self._lives.has_come_up(unit),
            lambda unit: self._lives.has_gone_down(unit),
            self._quarantine.refusal,
            clock,
            dice,
        )
        stopper = self._stopper = Stopper(mesh, timing)

        def make_upgrade(unit: Unit, found: Installed) -> Upgrade:
            beside = beside_of(unit, found, make_unit(unit.plugin_id, Unrecorded()))
            return Upgrade(unit, beside, mesh, self._starter, stopper, keeper, timing, clock)

        self._lives = Lives(self._roster, keeper, stopper)
        self._enabling = Enabling(self._roster, self._lives, standing)
        self._upgrades = Upgrades(self._roster, self._lives, self._quarantine, make_upgrade)

    @property
    def warnings(self) -> list[str]:
        """What seems wrong in the plugin folders without keeping any plugin from running."""
        return list(self._roster.warnings)

    def snapshot(self) -> list[PluginView]:
        """Every plugin that is known, by name."""
        views = [self._view(unit) for unit in self._roster]
        return sorted(views, key=lambda view: view.name)

    def figures(self) -> Figures:
        """What is counted of all plugins together."""
        plan, stopper = self._roster.plan, self._stopper
        cleanups = stopper.cleanups, stopper.cleanups_failed
        return Figures(len(plan.unmet), len(plan.conflicting), len(plan.cycles), *cleanups)

    async def start_all(self) -> None:
        """Starts every plugin that is enabled and returns when each of them runs or has failed."""
        self._lives.refuse_when_closing()
        with tracepoints.span("plugins.start"):
            await self._start_all()

    async def _start_all(self) -> None:
        try:
            self._spawner.open()
        except (SupervisorError, OSError) as error:
            # Every managed plugin will fail with this reason; those that are started by hand still can register.
            logger.error("plugins cannot be started: %s", error)
        await self._roster.rescan()
        for warning in self.warnings:
            logger.warning("%s", warning)
        order = self._lives.next_order()
        for unit in self._roster.in_order():
            if unit.enabled and unit.managed:
                await self._lives.begin(unit, order)
        for unit in self._roster:
            await unit.settled.wait()

    async def start(self, name: str, *, force: bool = False) -> None:
        """Starts a plugin after what it needs; the folders are read anew before.

        Returns when it runs. To give up waiting does not stop the start.

        Args:
            force: also what is quarantined.

        Raises:
            SupervisorError: the name is unknown, it is disabled, or it did not come up; the text says why.
        """
        self._lives.refuse_when_closing()
        order = self._lives.next_order()
        await self._roster.rescan()
        unit = self._roster.get(name)
        if not unit.managed and unit.session is not None:
            if not unit.active:
                await self._lives.adopt(unit, unit.session, unit.claimed_version)
        else:
            self._refuse_what_cannot_start(unit)
            if force:
                await self._quarantine.let_in(unit)
            for each in self._roster.needed_by(unit):
                await self._lives.begin(each, order)
        await unit.settled.wait()
        if unit.state is not State.RUNNING:
            self._lives.refuse_when_closing()
            raise SupervisorError("failed", unit.error or f"plugin {name!r} is {unit.state}")

    async def stop(self, name: str) -> tuple[str, ...]:
        """Stops a plugin, before it what needs it; returns the names in that order.

        To give up waiting does not stop the stop.

        Raises:
            SupervisorError: the name is unknown.
        """
        unit = self._roster.get(name)
        stopping = {name, *(each.plugin_id for each in self._roster.needing(unit))}
        abandoning = self._lives.own(self._upgrades.abandon(stopping & self._upgrades.names(), inf))
        names = await self._lives.stop(unit)
        await asyncio.shield(abandoning)
        return names

    def set_pace(self, max_concurrency: int, timeout: float) -> None:
        """Changes two of the figures given at the beginning, for starts that begin from now on."""
        self._slots.resize(max_concurrency)
        self._starter.set_step(timeout)

    async def reload(self) -> list[Outcome]:
        """Makes the plugins what the folders say now; returns what became of each when they have settled.

        Raises:
            SupervisorError: the broker is stopping.
        """
        self._lives.refuse_when_closing()
        lives = self._lives
        with tracepoints.span("plugins.reload"):
            return await Reload(self._roster, self.stop, lambda unit: lives.begin(unit, lives.next_order())).run()

    async def renew(self, names: Sequence[str] | None) -> list[Renewed]:
        """Reloads plugins by name, or with None all that are not stopped; one that is stopped is started.

        Those that restart with one of these, such as its sub-plugins, go down before it and come up after it.
        To give up waiting does not stop the reload.

        Returns:
            What became of each; one that is unknown costs the others nothing.

        Raises:
            SupervisorError: the broker is stopping.
        """
        self._lives.refuse_when_closing()
        if names is None:
            wanted = {unit.plugin_id for unit in self._roster if unit.desired is Desired.RUNNING and unit.managed}
        else:
            await self._roster.rescan()
            wanted = set(names)
        named = [unit for unit in self._roster if unit.plugin_id in wanted]
        units = self._lives.with_dependants(named)
        renewal = Renewal(self._roster, self._lives, self._lives.next_order())
        with tracepoints.span("plugins.reload"):
            renewed: list[Renewed] = await asyncio.shield(self._lives.own(renewal.run(units)))
        unknown = wanted - {unit.plugin_id for unit in named}
        return [*renewed, *(Renewed(name, error=self._roster.unknown(name)) for name in sorted(unknown))]

    async def upgrade(
        self, name: str, folder: Path | None = None, *, force: bool = False, remember: bool = True
    ) -> Upgraded:
        """Puts a new version of a plugin in the place of the old one, which serves until the new one is proven.

        To give up waiting does not stop the upgrade.

        Args:
            folder: holds the new version; None for the plugin's own folder as it is now.
            force: also when this content is quarantined.
            remember: whether it is started from this folder from now on; not for one that is about to be found anyway.

        Raises:
            SupervisorError: it was not upgraded; the text says why.
        """
        with tracepoints.span("plugin.upgrade", {c.PLUGIN: name}):
            return await self._upgrades.run(name, folder, force=force, remember=remember)

    async def enable(self, name: str) -> None:
        """Lets a plugin run again and starts it; raises SupervisorError as start() does."""
        await self._enabling.enable(name)
        await self.start(name)

    async def disable(self, name: str) -> tuple[str, ...]:
        """Stops a plugin, before it what needs it, and keeps it from running until it is enabled.

        Returns:
            The names in the order of stopping.

        Raises:
            SupervisorError: the name is unknown, or it was started by hand.
        """
        return await asyncio.shield(self._lives.own(self._enabling.disable(name)))

    async def drain(self, name: str, limit: float) -> bool:
        """Gives a plugin that runs nothing new and waits until it has finished what it has; it goes on running.

        Args:
            limit: seconds to wait.

        Returns:
            Whether it has finished.

        Raises:
            SupervisorError: it does not run.
        """
        sessions = self._sessions_of(name)
        for session in sessions:
            self._mesh.switch(None, session)
        return all(await asyncio.gather(*(self._mesh.drained(session, limit) for session in sessions)))

    def undrain(self, name: str) -> None:
        """Puts a plugin back that was drained; raises SupervisorError when it does not run."""
        for session in self._sessions_of(name):
            self._mesh.switch(session, None)

    async def logs(self, name: str, number: int, least: str) -> list[LogLine]:
        """The last lines that a plugin wrote, oldest first.

        Args:
            number: how many at most.
            least: only those of this level or a graver one.

        Raises:
            SupervisorError: the name or the level is unknown.
        """
        if least not in LEVELS:
            raise SupervisorError("bad_request", f"level is {least!r:.80}: use one of {', '.join(LEVELS)}")
        with Tail(self._log_dir, self._roster.get(name).plugin_id, least) as tail:
            return await asyncio.to_thread(tail.last, number)

    async def stop_all(self, limit: float) -> list[str]:
        """Stops everything in reverse order of dependency, and closes this room for good.

        Plugins that were started by hand go on: they wait for the next broker.

        Args:
            limit: seconds for all of it; plugins deep in the order get their share of it.

        Returns:
            What could not be done, a text each.
        """
        self._lives.closing = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        units = self._roster.in_order()
        for unit in units:
            # What the operator wants of them stays as it is; only what is under way must not go on.
            unit.supersede()
        upgrades = self._lives.own(self._upgrades.abandon(self._upgrades.names(), limit))
        plugins = self._lives.own(descend(units, self._lives.before, self._lives.end_own, limit))
        left = [text for texts in await asyncio.shield(asyncio.gather(upgrades, plugins)) for text in texts]
        self._lives.cancel_all()
        await self._spawner.close()
        if not await asyncio.to_thread(self._logs.close, max(0.1, deadline - loop.time())):
            left.append("the last lines of plugins were not written to their logs")
        return left

    def kill_all(self) -> None:
        """Kills every managed plugin; for any thread, and for an event loop that hangs."""
        self._spawner.kill_all()

    def session_opened(self, plugin_id: str, session: int, version: str = "") -> None:
        """A plugin that was started by hand has registered, and said what version it is."""
        if not self._lives.closing:
            self._lives.own(self._admit(plugin_id, session, version))

    def session_lost(self, plugin_id: str, session: int, reason: str) -> None:
        """The session of a plugin has ended."""
        unit = self._roster.find(plugin_id)
        if unit is None:
            return
        self._upgrades.session_lost(plugin_id, session, reason)
        unit.further.pop(session, None)
        if unit.session == session:
            unit.detach(reason)

    async def _admit(self, plugin_id: str, session: int, version: str) -> None:
        try:
            unit = await self._roster.admit(plugin_id)
        except BadDocument as error:
            unit = self._roster.get(plugin_id)
            unit.refuse(f"plugin {plugin_id!r} was started by hand, but its configuration is unusable: {error}")
            logger.error("%s", unit.error)
            return
        await self._lives.adopt(unit, session, version)

    def _view(self, unit: Unit) -> PluginView:
        name = unit.plugin_id
        note = self._upgrades.phase(name) or self._enabling.note(name) or unit.note
        mount = unit.process.mount if unit.process else self._roster.mount(name)
        return replace(unit.view(), quarantine=self._quarantine.of(name), note=note, mount=mount)

    def _sessions_of(self, name: str) -> list[int]:
        unit = self._roster.get(name)
        if unit.session is None or unit.state is not State.RUNNING:
            raise SupervisorError("unavailable", f"plugin {name!r} is {unit.state}: only one that runs can be drained")
        return [unit.session, *unit.further]

    def _refuse_what_cannot_start(self, unit: Unit) -> None:
        if unit.installed is None:
            text = f"plugin {unit.plugin_id!r} has no folder here: start it by hand, as it was before"
            raise SupervisorError("unavailable", text)
        if not unit.enabled:
            unit.refuse(f"plugin {unit.plugin_id!r} is disabled: enable it with `broker enable {unit.plugin_id}`")
            raise SupervisorError("disabled", unit.error)
