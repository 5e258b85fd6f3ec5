"""What was decided about plugins and must hold for the next broker too, kept in one small file of the home.

Not in the database: plugins start before it is open, and also while it is away. The database has a copy to look at.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct, structs

logger = logging.getLogger(__name__)


class Choice(Struct, frozen=True):
    """The folder that a plugin runs from instead of its own.

    Args:
        folder: where the version is that it was upgraded to.
        own: digest of its own folder at that time; empty when it had none. When that changes, it counts again.
    """

    folder: str
    own: str = ""


class Quarantined(Struct, frozen=True):
    """Content that must not be started again; `since` in UTC."""

    plugin_id: str
    digest: str
    version: str
    reason: str
    since: datetime


class _Content(Struct, frozen=True):
    enabled: dict[str, bool] = {}
    folders: dict[str, Choice] = {}
    quarantine: tuple[Quarantined, ...] = ()


class Standing:
    """The decisions in force; every change is written out before the call that makes it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = self._read()
        self._turn = asyncio.Lock()

    @property
    def enabled(self) -> Mapping[str, bool]:
        """Whether plugins may run, where the operator said so by command."""
        return self._content.enabled

    @property
    def folders(self) -> Mapping[str, Choice]:
        """The folders that plugins run from, where it is not their own."""
        return self._content.folders

    def quarantine(self, plugin_id: str) -> tuple[Quarantined, ...]:
        """What of a plugin must not be started."""
        return tuple(each for each in self._content.quarantine if each.plugin_id == plugin_id)

    async def enable(self, plugin_id: str, enabled: bool | None) -> None:
        """Let a plugin run or not, whatever its manifest says; None leaves it to the manifest."""
        others = {name: each for name, each in self.enabled.items() if name != plugin_id}
        await self._change(enabled=others if enabled is None else {**others, plugin_id: enabled})

    async def choose(self, plugin_id: str, choice: Choice | None) -> None:
        """Run a plugin from another folder; None for its own."""
        others = {name: each for name, each in self.folders.items() if name != plugin_id}
        await self._change(folders={**others, plugin_id: choice} if choice else others)

    async def keep_out(self, plugin_id: str, digest: str, version: str, reason: str) -> None:
        """Never start this content again."""
        kept = [each for each in self._content.quarantine if (each.plugin_id, each.digest) != (plugin_id, digest)]
        added = Quarantined(plugin_id, digest, version, reason, datetime.now(UTC))
        await self._change(quarantine=(*kept, added))

    async def let_in(self, plugin_id: str, digest: str) -> Quarantined | None:
        """Allow this content again; returns the entry that is lifted, if there was one."""
        found = [each for each in self.quarantine(plugin_id) if each.digest == digest]
        if found:
            await self._change(quarantine=tuple(each for each in self._content.quarantine if each not in found))
        return found[0] if found else None

    async def _change(self, **values: object) -> None:
        async with self._turn:
            self._content = structs.replace(self._content, **values)
            try:
                await asyncio.to_thread(self._write, msgspec.json.format(msgspec.json.encode(self._content)))
            except OSError as error:
                # It holds for this broker at least.
                logger.error("%s cannot be written, the next broker will not know: %s", self._path, error.strerror)

    def _read(self) -> _Content:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Content)
        except FileNotFoundError:
            return _Content()
        except (OSError, msgspec.DecodeError) as error:
            aside = self._path.with_suffix(".broken")
            logger.error("%s is unusable and put aside as %s: %s", self._path, aside.name, error)
            if self._path.exists():
                self._path.replace(aside)
            return _Content()

    def _write(self, data: bytes) -> None:
        draft = self._path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(data + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
