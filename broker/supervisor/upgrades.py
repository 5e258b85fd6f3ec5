"""Upgrades by name: what may be upgraded to what, what became of it, and what is never tried again (PLG-8)."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker.supervisor.digest import SHOWN, digest_of
from broker.supervisor.discovery import Installed
from broker.supervisor.errors import SupervisorError
from broker.supervisor.lives import Lives
from broker.supervisor.plan import make_plan
from broker.supervisor.quarantine import Quarantine
from broker.supervisor.roster import Roster
from broker.supervisor.states import Desired, State
from broker.supervisor.unit import Unit
from broker.supervisor.upgrade import Phase, Unproven, Upgrade, check_identity

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What an upgrade has done.

    Args:
        before: the version that served until then; empty when nobody knows.
        after: the version that is in force now.
        digest: of the folder with it.
        running: False when the plugin is stopped and stays so: the new version is for its next start.
    """

    plugin_id: str
    before: str
    after: str
    digest: str
    running: bool


class Upgrades:
    """The upgrades that are under way, at most one for each plugin.

    Args:
        make: makes an upgrade of a unit to what is installed in another folder.
    """

    def __init__(
        self,
        roster: Roster,
        lives: Lives,
        quarantine: Quarantine,
        make: Callable[[Unit, Installed], Upgrade],
    ) -> None:
        self._roster = roster
        self._lives = lives
        self._quarantine = quarantine
        self._make = make
        self._tasks: dict[str, asyncio.Task[Upgraded]] = {}
        self._running: dict[str, Upgrade] = {}

    async def run(self, name: str, folder: Path | None, *, force: bool, remember: bool = True) -> Upgraded:
        """Upgrades a plugin; to give up waiting does not stop the upgrade.

        Args:
            folder: holds the new version; None for its own folder as it is now.
            force: also when this content is quarantined.
            remember: whether it is started from this folder from now on.

        Raises:
            SupervisorError: it was not upgraded; the text says why, and that the old version goes on if it does.
        """
        self._lives.refuse_when_closing()
        unit = self._roster.get(name)
        if name in self._tasks:
            raise SupervisorError("busy", f"plugin {name!r} is being upgraded already")
        task = self._tasks[name] = self._lives.own(self._upgrade(unit, folder, force, remember))
        task.add_done_callback(lambda _: self._tasks.pop(name))
        return await asyncio.shield(task)

    def session_lost(self, plugin_id: str, session: int, reason: str) -> None:
        """A session has ended; it may be that of a version that stands beside."""
        upgrade = self._running.get(plugin_id)
        if upgrade is not None and upgrade.beside.session == session:
            upgrade.beside.detach(reason)

    def phase(self, plugin_id: str) -> str:
        """How far the upgrade of a plugin is, in words; nothing when there is none."""
        upgrade = self._running.get(plugin_id)
        if upgrade is None:
            return ""
        manifest = (upgrade.unit if upgrade.phase is Phase.DRAINING else upgrade.beside).manifest
        return f"upgrade to {manifest.version if manifest else ''}: {upgrade.phase}"

    async def abandon(self, names: set[str], limit: float) -> list[str]:
        """Gives up upgrades and ends what stands beside; returns what could not be done, a text each."""
        upgrades = [upgrade for name, upgrade in self._running.items() if name in names]
        tasks = [task for name, task in self._tasks.items() if name in names]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        left = await asyncio.gather(*(upgrade.take_down(limit) for upgrade in upgrades))
        return [text for text in left if text]

    def names(self) -> set[str]:
        """The plugins that are being upgraded."""
        return set(self._tasks)

    async def _upgrade(self, unit: Unit, folder: Path | None, force: bool, remember: bool) -> Upgraded:
        if unit.active and not unit.managed:
            text = f"plugin {unit.plugin_id!r} was started by hand: start a further process of it with an instance name"
            raise SupervisorError("unavailable", text)
        found = await self._roster.look_into(unit.plugin_id, folder)
        check_identity(found, unit)
        self._check_plan(unit, found)
        digest = await _digest(found)
        await self._quarantine.check(found, digest, force=force)
        before = str(unit.manifest.version) if unit.manifest else ""
        after = str(found.manifest.version) if found.manifest else ""
        chosen = folder if remember else None
        if unit.desired is not Desired.RUNNING:
            await self._roster.choose(unit.plugin_id, chosen)
            await self._roster.rescan()
            return Upgraded(unit.plugin_id, before, after, digest, running=False)
        await self._replace(unit, found, chosen, digest)
        logger.info("upgraded %s from %s to %s (%s)", unit.plugin_id, before, after, digest[:SHOWN])
        return Upgraded(unit.plugin_id, before, after, digest, running=True)

    async def _replace(self, unit: Unit, found: Installed, chosen: Path | None, digest: str) -> None:
        upgrade = self._running[unit.plugin_id] = self._make(unit, found)
        try:
            await upgrade.bring_up()
            served = unit.state is State.RUNNING
            await upgrade.switch()
        except Unproven as failure:
            await upgrade.take_down()
            raise await self._refused(unit, found, digest, str(failure)) from None
        except SupervisorError:
            await upgrade.take_down()
            raise
        else:
            self._roster.replan()
            await self._roster.choose(unit.plugin_id, chosen)
            if not served:
                self._lives.has_come_up(unit)
            await upgrade.retire()
        finally:
            del self._running[unit.plugin_id]

    async def _refused(self, unit: Unit, found: Installed, digest: str, reason: str) -> SupervisorError:
        await self._quarantine.keep_out(found, digest, reason)
        version = found.manifest.version if found.manifest else ""
        goes_on = f"{unit.manifest.version if unit.manifest else 'the old version'} goes on"
        stays = goes_on if unit.state is State.RUNNING else f"it is {unit.state}"
        logger.error("upgrade of %s to %s failed, %s: %s", unit.plugin_id, version, stays, reason)
        text = f"plugin {unit.plugin_id!r} was not upgraded to {version}, {stays}: {reason}"
        return SupervisorError("failed", f"{text}\nthis content ({digest[:SHOWN]}) is quarantined")

    def _check_plan(self, unit: Unit, found: Installed) -> None:
        """Refuses a version that would keep itself, or what needs it, from starting."""
        if not found.candidate.enabled:
            raise SupervisorError("disabled", f"plugin {unit.plugin_id!r} is disabled by its configuration")
        if unit.active and found.candidate.parent_name != unit.candidate.parent_name:
            before, after = (each.parent_name or "no plugin" for each in (unit.candidate, found.candidate))
            text = f"it mounts on {before} and would mount on {after}, so its services would change their names"
            text = f"plugin {unit.plugin_id!r} is not upgraded: {text}; `broker stop {unit.plugin_id}` first"
            raise SupervisorError("failed", text)
        plan = make_plan(found.candidate if each is unit else each.candidate for each in self._roster)
        fresh = [problem.text for name, problem in plan.problems.items() if name not in self._roster.plan.problems]
        own = plan.problems.get(unit.plugin_id)
        if fresh or own:
            text = "; ".join(fresh) or (own.text if own else "")
            raise SupervisorError("failed", f"plugin {unit.plugin_id!r} is not upgraded: {text}")


async def _digest(found: Installed) -> str:
    try:
        return await asyncio.to_thread(digest_of, found.folder)
    except OSError as error:
        text = f"{error.filename or found.folder} cannot be read: {error.strerror}"
        raise SupervisorError("failed", f"plugin {found.plugin_id!r} is not upgraded: {text}") from None
