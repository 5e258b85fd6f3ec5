"""All plugins that are known, whether installed or started by hand, and the plan that orders them."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from broker.supervisor.decided import as_decided, digest_or_nothing, with_enabled
from broker.supervisor.discovery import Catalog, Installed, discover, read_folder, read_overrides
from broker.supervisor.errors import SupervisorError
from broker.supervisor.keeper import Before
from broker.supervisor.plan import Plan, make_plan
from broker.supervisor.standing import Choice, Standing
from broker.supervisor.states import State, Trigger
from broker.supervisor.unit import Unit

# Plugins started by hand may come under ever new names; so many of those that left are remembered.
MAX_DEPARTED = 64


class Roster:
    """The units by plugin id.

    Args:
        make_unit: makes the unit of a plugin id.
    """

    def __init__(
        self, plugin_dirs: Sequence[Path], config_dir: Path, standing: Standing, make_unit: Callable[[str], Unit]
    ) -> None:
        self.plan = Plan()
        self.warnings: list[str] = []
        self._plugin_dirs = plugin_dirs
        self._config_dir = config_dir
        self._standing = standing
        self._make_unit = make_unit
        self._units: dict[str, Unit] = {}

    def __iter__(self) -> Iterator[Unit]:
        return iter(list(self._units.values()))

    def find(self, plugin_id: str) -> Unit | None:
        """The unit of this id, if there is one."""
        return self._units.get(plugin_id)

    def get(self, plugin_id: str) -> Unit:
        """The unit of this id; raises SupervisorError for an unknown one."""
        unit = self._units.get(plugin_id)
        if unit is None:
            raise SupervisorError("unavailable", self.unknown(plugin_id))
        return unit

    def unknown(self, plugin_id: str) -> str:
        """What to say of an id that is not here."""
        near = get_close_matches(plugin_id, self._units, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(self._units)) or 'none'}"
        return f"there is no plugin {plugin_id!r}: {hint}"

    def in_order(self) -> list[Unit]:
        """All of them, each after what it comes after; those that cannot start are last."""
        planned = [name for level in self.plan.levels for name in level]
        rest = self._units.keys() - set(planned)
        return [self._units[name] for name in (*planned, *sorted(rest))]

    def needed_by(self, unit: Unit) -> list[Unit]:
        """The unit after everything it requires; alone when it cannot start anyway."""
        return [self._units[name] for name in self.plan.needed_by(unit.plugin_id)] or [unit]

    def needing(self, unit: Unit) -> list[Unit]:
        """Everything that requires the unit, in start order, without it."""
        names = reversed(self.plan.needing(unit.plugin_id))
        return [self._units[name] for name in names if name != unit.plugin_id]

    async def rescan(self) -> None:
        """Takes in what the folders hold now; a plugin that is active keeps what it was started with."""
        self.take_in(await self.look())

    async def refresh(self, unit: Unit) -> None:
        """Takes in what the folder of one plugin at rest holds now."""
        if unit.installed is None:
            return
        found = await self.look_into(unit.plugin_id, unit.installed.folder)
        if found.fault or found.plugin_id != unit.plugin_id:
            await self.rescan()
        elif found != unit.installed:
            unit.install(found)
            unit.describe()
            self.replan()

    async def look(self) -> Catalog:
        """What the folders hold now, as the standing decisions have it; nothing is taken in."""
        return await asyncio.to_thread(self._look)

    async def look_into(self, plugin_id: str, folder: Path | None) -> Installed:
        """What one folder holds now, None for the plugin's own; nothing is taken in."""
        if folder is None:
            found = {each.plugin_id: each for each in (await self.look()).plugins}
            return found.get(plugin_id) or Installed(plugin_id, Path(), fault=f"plugin {plugin_id!r} has no folder")
        return with_enabled(await asyncio.to_thread(read_folder, folder, self._config_dir), self._standing.enabled)

    async def enabled_by_itself(self, unit: Unit) -> bool:
        """Whether a plugin may run as far as its folder and its operator's file go."""
        if unit.installed is None:
            return True
        found = await asyncio.to_thread(read_folder, unit.installed.folder, self._config_dir)
        return found.manifest is None or found.manifest.enabled

    async def choose(self, plugin_id: str, folder: Path | None) -> None:
        """Runs a plugin from this folder from its next start on; None for the one that it is found in anyway."""
        if folder is None:
            return
        own = {each.plugin_id: each for each in (await asyncio.to_thread(self._discover)).plugins}.get(plugin_id)
        if own and own.folder == folder:
            await self._standing.choose(plugin_id, None)
        else:
            digest = await asyncio.to_thread(digest_or_nothing, own.folder) if own else ""
            await self._standing.choose(plugin_id, Choice(str(folder), digest))

    async def admit(self, plugin_id: str) -> Unit:
        """The unit of a plugin that was started by hand, with what its operator's file says.

        Raises:
            BadDocument: that file cannot be used.
        """
        unit = self._units.get(plugin_id)
        if unit is None:
            self._forget_departed()
            unit = self._units[plugin_id] = self._make_unit(plugin_id)
        if unit.installed is None:
            unit.overrides = await asyncio.to_thread(read_overrides, plugin_id, self._config_dir)
        return unit

    def before(self, unit: Unit) -> Before:
        """The plugins that one comes after."""
        every = self.plan.before.get(unit.plugin_id, frozenset())
        hard = self.plan.requires.get(unit.plugin_id, frozenset())
        return Before(
            all=[self._units[name] for name in sorted(every)],
            required=[self._units[name] for name in sorted(hard)],
        )

    def mount(self, plugin_id: str) -> str:
        """The name under which a plugin serves from its next start on."""
        return self.plan.mounts.get(plugin_id, plugin_id)

    def take_in(self, catalog: Catalog) -> None:
        """Takes in what was found, but for plugins that are active."""
        found = {each.plugin_id: each for each in catalog.plugins}
        for plugin_id, installed in found.items():
            unit = self._units.get(plugin_id)
            if unit is None:
                unit = self._units[plugin_id] = self._make_unit(plugin_id)
            if not unit.active:
                unit.install(installed)
                _set_enabled(unit)
        for unit in self:
            if unit.installed and unit.plugin_id not in found and not unit.active:
                unit.retire()
                del self._units[unit.plugin_id]
        self.replan()
        self.warnings = [*catalog.warnings, *self.plan.notes]

    def replan(self) -> None:
        """Makes the plan anew, because a plugin that was started by hand has come."""
        self.plan = make_plan(unit.candidate for unit in self._units.values())

    def _discover(self) -> Catalog:
        return discover(self._plugin_dirs, self._config_dir)

    def _look(self) -> Catalog:
        return as_decided(self._discover(), self._standing, self._config_dir)

    def _forget_departed(self) -> None:
        departed = [unit for unit in self if unit.installed is None and unit.session is None and not unit.active]
        for unit in departed[: max(0, len(departed) - MAX_DEPARTED + 1)]:
            del self._units[unit.plugin_id]


def _set_enabled(unit: Unit) -> None:
    if not unit.enabled and unit.state in (State.STOPPED, State.FAILED):
        unit.retire()
        unit.move(Trigger.DISABLE, "")
    elif unit.enabled and unit.state is State.DISABLED:
        unit.move(Trigger.ENABLE, "")
    unit.describe()
