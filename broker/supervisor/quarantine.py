"""Content that failed once is not started again by itself: kept out by the digest of its folder."""

import asyncio
import logging

from broker.supervisor.digest import SHOWN, digest_of
from broker.supervisor.discovery import Installed
from broker.supervisor.errors import SupervisorError
from broker.supervisor.ports import Records
from broker.supervisor.standing import Quarantined, Standing
from broker.supervisor.unit import Unit

logger = logging.getLogger(__name__)


class Quarantine:
    """What must not be started, and why."""

    def __init__(self, standing: Standing, records: Records) -> None:
        self._standing = standing
        self._records = records

    def of(self, plugin_id: str) -> tuple[Quarantined, ...]:
        """What of a plugin must not be started."""
        return self._standing.quarantine(plugin_id)

    async def keep_out(self, found: Installed, digest: str, reason: str) -> None:
        """Never starts this content again, unless somebody insists."""
        version = str(found.manifest.version) if found.manifest else ""
        self._records.quarantined(found.plugin_id, digest, version, reason, released=False)
        await self._standing.keep_out(found.plugin_id, digest, version, reason)

    async def check(self, found: Installed, digest: str, *, force: bool) -> None:
        """Raises SupervisorError for content that must not be started; with `force` it is let in again."""
        entry = next((each for each in self.of(found.plugin_id) if each.digest == digest), None)
        if entry is None:
            return
        if not force:
            raise SupervisorError("failed", f"plugin {found.plugin_id!r} is not upgraded: {_told(entry)}")
        await self._release(entry)

    async def refusal(self, unit: Unit) -> str:
        """Why a plugin must not be started from its folder as it is; an empty text when it may."""
        entry = await self._find(unit)
        if entry is None:
            return ""
        way_out = f"put another version into its folder, or use `broker start {unit.plugin_id} --force`"
        return f"plugin {unit.plugin_id!r} is not started: {_told(entry)}\n{way_out}"

    async def let_in(self, unit: Unit) -> None:
        """Allows what a plugin's folder holds now, because somebody insists."""
        if entry := await self._find(unit):
            await self._release(entry)

    async def _find(self, unit: Unit) -> Quarantined | None:
        entries = self.of(unit.plugin_id)
        if not entries or unit.installed is None:
            # Nearly always; a folder may be large, and only then is it read.
            return None
        try:
            digest = await asyncio.to_thread(digest_of, unit.installed.folder)
        except OSError:
            # The start will find out, and say more about it.
            return None
        return next((each for each in entries if each.digest == digest), None)

    async def _release(self, entry: Quarantined) -> None:
        logger.warning("content %s of plugin %s is let in again", entry.digest[:SHOWN], entry.plugin_id)
        self._records.quarantined(entry.plugin_id, entry.digest, entry.version, entry.reason, released=True)
        await self._standing.let_in(entry.plugin_id, entry.digest)


def _told(entry: Quarantined) -> str:
    reason = entry.reason.partition("\n")[0]
    since = f"{entry.since:%Y-%m-%d %H:%M} UTC"
    return f"version {entry.version} ({entry.digest[:SHOWN]}) is quarantined since {since}: {reason}"
