"""Upgrade of a plugin: the new version beside the old one, proven, then switched to in one step (PLG-8)."""

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum
from math import inf
from typing import Any

from broker.supervisor.discovery import Installed
from broker.supervisor.errors import CommandError, SupervisorError
from broker.supervisor.keeper import Keeper
from broker.supervisor.lives import end_life
from broker.supervisor.ports import Mesh
from broker.supervisor.process import Process
from broker.supervisor.starter import Starter, StartFailed
from broker.supervisor.states import Desired, State, Trigger
from broker.supervisor.stopper import Stopper
from broker.supervisor.timing import Timing
from broker.supervisor.unit import Unit

logger = logging.getLogger(__name__)

# Between two questions how a new version is.
HEALTH_SECS = 1.0


class Phase(StrEnum):
    """How far an upgrade is."""

    STARTING = "starting"
    PROVING = "proving"
    DRAINING = "draining"


class Unproven(Exception):
    """The new version is not to be taken over; the text says why."""


class Upgrade:
    """One upgrade of one plugin.

    Args:
        unit: the plugin as it is.
        beside: a unit of the same plugin that is known to nobody else, with the new version installed.
    """

    def __init__(
        self,
        unit: Unit,
        beside: Unit,
        mesh: Mesh,
        starter: Starter,
        stopper: Stopper,
        keeper: Keeper,
        timing: Timing,
        clock: Callable[[], float],
    ) -> None:
        self.unit = unit
        # The new version, and from the switch on the old one.
        self.beside = beside
        self.phase = Phase.STARTING
        self._mesh = mesh
        self._starter = starter
        self._stopper = stopper
        self._keeper = keeper
        self._timing = timing
        self._clock = clock
        self._ending: asyncio.Task[str] | None = None

    async def bring_up(self) -> None:
        """Starts the new version as a standby and waits until it has proven itself.

        Raises:
            Unproven: it did not; nothing of it is left.
        """
        beside = self.beside
        beside.move(Trigger.START)
        try:
            await self._starter.bring_up(beside, beside.generation)
        except StartFailed as failure:
            raise Unproven(str(failure)) from None
        self.phase = Phase.PROVING
        try:
            await self._prove(beside)
        except Unproven as failure:
            beside.last_words = beside.process.tail() if beside.process else []
            await self.take_down()
            raise Unproven(beside.with_last_words(str(failure))) from None

    async def switch(self) -> None:
        """Puts the new version in the place of the old one, in one step.

        Raises:
            Unproven: it has ended in the last moment.
            SupervisorError: the plugin has been stopped meanwhile.
        """
        unit, beside = self.unit, self.beside
        async with unit.lock:
            if unit.desired is not Desired.RUNNING:
                raise SupervisorError("cancelled", f"plugin {unit.plugin_id!r} was stopped while it was upgraded")
            await end_life(unit)
            # No await from here on: the plugin must not be found half way.
            gone = beside.session is None or beside.process is None or beside.process.exited.done()
            if gone and unit.state is State.RUNNING:
                unit.life = asyncio.create_task(self._keeper.keep_on(unit))
                raise Unproven(f"{_named(beside)} ended in the moment of the switch")
            self._mesh.switch(beside.session, unit.session)
            unit.exchange(beside)
            unit.supersede()
            unit.record.forget()
            unit.move(Trigger.SWITCHED, "")
            unit.life = asyncio.create_task(self._keeper.keep_on(unit))
        self.phase = Phase.DRAINING
        unit.describe()

    async def retire(self) -> None:
        """Lets the old version finish what it has, cleans it up and stops it."""
        old, limit = self.beside, self._timing.of(self.beside.manifest).drain
        if old.session is not None and not await self._mesh.drained(old.session, limit):
            logger.warning("%s has not finished all that it had within %g s", _named(old), limit)
        if left := await self.take_down():
            logger.error("%s", left)

    async def take_down(self, limit: float = inf) -> str:
        """Ends the process that stands beside, whichever it is; returns what could not be done."""
        if self._ending is None:
            if not self.beside.active:
                return ""
            # A task of its own, which the one who gives up an upgrade finds where it was.
            self._ending = asyncio.create_task(self._stopper.bring_down(self.beside, limit))
        return await asyncio.shield(self._ending)

    async def _prove(self, beside: Unit) -> None:
        """Waits until it has been well for so long as its manifest asks for."""
        process, lost = beside.process, beside.lost
        assert process is not None
        assert lost is not None
        times = self._timing.of(beside.manifest)
        began = self._clock()
        well_since: float | None = None
        while True:
            trouble = await self._ask(beside)
            now = self._clock()
            if trouble and (well_since is not None or now - began > times.start):
                raise Unproven(f"{_named(beside)} is not well: {trouble}")
            well_since = None if trouble else well_since or now
            if well_since is not None and now - well_since >= times.min_uptime:
                return
            left = HEALTH_SECS if well_since is None else min(HEALTH_SECS, well_since + times.min_uptime - now)
            ends: list[asyncio.Future[Any]] = [process.exited, lost]
            await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if process.exited.done() or lost.done():
                raise Unproven(await self._end_of(beside, process))

    async def _end_of(self, beside: Unit, process: Process) -> str:
        # A session is often lost because its process ends, and then that is the better story.
        await asyncio.wait({process.exited}, timeout=self._timing.settle)
        if process.exited.done():
            return f"{_named(beside)} {process.exited.result().told(f' after {process.age():.1f} s')}"
        return f"{_named(beside)} lost its session: {beside.lost.result() if beside.lost else ''}"

    async def _ask(self, beside: Unit) -> str:
        """What it says is wrong with it; nothing when it is well."""
        if beside.session is None:
            return "it has no session"
        try:
            answer = await self._mesh.command(beside.session, "$plugin.health", {}, self._timing.step)
        except CommandError as error:
            # Its end is found where it is waited for, with more to tell.
            return "" if error.code == "lost" else f"{error.code}: {error.text}"
        if isinstance(answer, dict) and answer.get("ok") is False:
            return str(answer.get("reason") or "it says so itself")
        return ""


class Unrecorded:
    """Records of a version that stands beside: what is written down of a plugin is what serves."""

    def registration(self, plugin_id: str, status: int, error: str | None) -> None:
        """Not written down."""

    def described(
        self, plugin_id: str, *, name: str, version: str, description: str, enabled: bool, desired: str
    ) -> None:
        """Not written down."""

    def quarantined(self, plugin_id: str, digest: str, version: str, reason: str, *, released: bool) -> None:
        """Not written down."""

    def exceeded(self, plugin_id: str, limit: str, result: str, text: str) -> None:
        """Not written down."""

    def exited(self, plugin_id: str, text: str, restarts: int) -> None:
        """Not written down."""


def beside_of(unit: Unit, found: Installed, fresh: Unit) -> Unit:
    """Makes of a fresh unit one that stands beside a plugin with another version of it."""
    fresh.install(found)
    fresh.managed = fresh.standby = True
    fresh.desired = Desired.RUNNING
    fresh.generation = unit.generation + 1
    return fresh


def check_identity(found: Installed, unit: Unit) -> None:
    """Raises SupervisorError for a folder that does not hold a version of this plugin."""
    if found.fault or found.manifest is None:
        raise SupervisorError("bad_config", f"plugin {unit.plugin_id!r} is not upgraded: {found.fault}")
    if found.plugin_id != unit.plugin_id:
        text = f"{found.folder} holds plugin {found.plugin_id!r}, not {unit.plugin_id!r}"
        raise SupervisorError("bad_config", text)


def _named(unit: Unit) -> str:
    version = unit.manifest.version if unit.manifest else ""
    return f"plugin {unit.plugin_id!r} {version}"
