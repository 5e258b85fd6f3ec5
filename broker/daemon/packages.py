"""Packages in the daemon: what the plugin folder holds is put in force, and the supervisor is told (PLG-7, PKG-4)."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from broker.packages.errors import PackageError, State
from broker.packages.installed import InstalledPackages, Record
from broker.packages.installer import Description, Installer, refuse_older
from broker.packages.names import file_name, parse_file_name
from broker.packages.opened import Rules
from broker.packages.workshop import Workshop
from broker.supervisor.discovery import read_folder
from broker.supervisor.errors import SupervisorError
from broker.supervisor.reload import FAILED, UNCHANGED, Outcome
from plugin_sdk.wire.errors import BusError

if TYPE_CHECKING:
    from broker.config import Config
    from broker.home import Home
    from broker.packages.watcher import Watcher
    from broker.packages.watching import Change, Scan

_T = TypeVar("_T")
log = logging.getLogger("broker.packages")

# Who acts when nobody asked.
ITSELF = "broker"


class _ThrownOut(PackageError):
    """It did not come up, and will not be tried again by itself; both are written down."""


@dataclass(slots=True)
class _News:
    """What a look at the plugin folder came to.

    Args:
        replacing: what is to take the place of another version.
        gone: plugins that are not in force any more.
        fresh: whether there is a plugin that was not there before.
        refused: package files that were not refused before, or for another reason.
    """

    replacing: list[Record] = field(default_factory=list)
    refused: list[Outcome] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    fresh: bool = False


def make_installer(config: Config, home: Home) -> Installer:
    """What works on the package files of a broker."""
    settings = config.plugin_manager
    installed = InstalledPackages(home.installed)
    rules = Rules(home.trusted, home.recipient, frozenset(settings.allow_unsigned))

    def describe(folder: Path) -> Description:
        found = read_folder(folder, settings.config_dir)
        version = str(found.manifest.version) if found.manifest else ""
        return Description(found.plugin_id, version, found.fault)

    return Installer(installed, Workshop(home.installed, rules), settings.plugin_dir, describe)


class Packages:
    """The packages of this broker. It does one thing at a time, for each reads the same folder.

    Args:
        installer: works on the files.
        data_dir: holds a folder for each plugin's own files.
        reload: makes the plugins what the folders say; returns what became of each.
        upgrade: puts what is in a folder in the place of a plugin that runs, once it has proven itself; raises
            SupervisorError when it did not, and what ran before goes on.
        renew: starts plugins anew that run from before their code was changed, at these times of the wall clock.
        audit: writes into the audit log: actor, action, target, result, detail; from any thread.
    """

    def __init__(
        self,
        installer: Installer,
        data_dir: Path,
        reload: Callable[[], Awaitable[Sequence[Outcome]]],
        upgrade: Callable[[str, Path], Awaitable[object]],
        renew: Callable[[Mapping[str, float]], Awaitable[None]],
        audit: Callable[[str, str, str, str, str], None],
    ) -> None:
        self._installer = installer
        self._installed = installer.installed
        self._data_dir = data_dir
        self._reload = reload
        self._upgrade = upgrade
        self._renew = renew
        self._audit = audit
        self._turn = asyncio.Lock()
        self._refusals: dict[str, str] = {}
        self._records: dict[str, Record] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watcher: Watcher | None = None
        self._known: Scan = {}

    async def begin(self) -> None:
        """Puts packages in force before any plugin is started; what replaces another version waits for follow()."""
        async with self._turn:
            try:
                await asyncio.to_thread(self._begin)
            except PackageError as error:
                self._refusals["packages"] = str(error)
                log.error("no package can be installed: %s", error)

    async def follow(self) -> None:
        """Brings in what came meanwhile, and newer versions of what runs."""
        await self._rescan(ITSELF, None, folders_too=False)

    def watch(self, interval: float) -> None:
        """Begins to watch the plugin folder; it is looked at every `interval` seconds at least."""
        from broker.packages.watcher import Watcher

        loop = asyncio.get_running_loop()

        def report(changes: Sequence[Change]) -> None:
            asyncio.run_coroutine_threadsafe(self._on_changes(changes), loop)

        self._watcher = Watcher(self._installer.plugin_dir, report, interval, self._known)
        self._watcher.start()

    def admit(self, config: Config) -> None:
        """Takes over for which plugins a package needs no signature, from the next look on."""
        workshop = self._installer.workshop
        workshop.rules = replace(workshop.rules, allow_unsigned=frozenset(config.plugin_manager.allow_unsigned))

    def close(self) -> None:
        """Ends what goes on in other threads and processes; returns at once."""
        if self._watcher is not None:
            self._watcher.stop(0)
        self._installer.workshop.close()

    def warnings(self) -> list[str]:
        """Why package files are not taken."""
        return [f"{name}: {text}" for name, text in sorted(self._refusals.items())]

    def refused(self, name: str) -> list[str]:
        """Why package files of a plugin are not taken."""
        return [f"{file}: {text}" for file, text in sorted(self._refusals.items()) if name in _plugins_of(file)]

    def facts(self) -> dict[str, dict[str, Any]]:
        """What is in force, by plugin id, ready for JSON."""
        return {name: _told(record) for name, record in self._records.items()}

    async def rescan(self, actor: str = ITSELF, only: Collection[str] | None = None) -> list[Outcome]:
        """Makes the plugins what the plugin folder says now; returns what became of them.

        Args:
            actor: who asks, for the audit log.
            only: plugins whose packages are looked at; all when not given.
        """
        return await self._rescan(actor, only, folders_too=only is None)

    async def _rescan(self, actor: str, only: Collection[str] | None, *, folders_too: bool) -> list[Outcome]:
        async with self._turn:
            news = await asyncio.to_thread(self._look, actor, only)
            for record in news.replacing:
                before = self._installed.active(record.id)
                try:
                    await self._replace(actor, record, before)
                except PackageError as error:
                    file = file_name(record.id, record.version)
                    self._refusals[file] = str(error)
                    news.refused.append(_refused(file, error))
                    if not isinstance(error, _ThrownOut):
                        self._note(actor, file, error)
                else:
                    await asyncio.to_thread(self._leave, before)
            outcomes = list(await self._reload()) if news.gone or news.fresh or folders_too else []
            await asyncio.to_thread(self._clear, news.gone)
            return [*outcomes, *news.refused]

    async def install(self, actor: str, file: Path, digest: str, *, downgrade: bool) -> dict[str, Any]:
        """Installs a package file and waits until the plugin runs; returns what is in force then.

        Args:
            digest: of the package that was agreed to, "" when nobody was asked.
            downgrade: whether it may take the place of a newer version.

        Raises:
            PackageError: it is refused; or it did not come up, and what was there before is back.
        """
        async with self._turn:
            try:
                record, copy = await asyncio.to_thread(self._installer.bring, file, digest)
            except PackageError as error:
                self._note(actor, file.name, error)
                raise
            before = self._installed.active(record.id)
            try:
                refuse_older(record, before, downgrade=downgrade)
                await self._replace(actor, record, before)
                record = await asyncio.to_thread(self._settle, record, copy, before)
            except PackageError as error:
                await asyncio.to_thread(self._installer.drop, record, copy)
                if not isinstance(error, _ThrownOut):
                    self._note(actor, f"{record.id}-{record.version}.spk", error)
                raise
            self._keep_refusals(but={record.id})
            return {"id": record.id, **_told(record)}

    async def remove(self, actor: str, name: str, *, purge: bool) -> list[str]:
        """Stops a plugin that came as a package and takes its package away; returns the package files.

        Args:
            purge: whether its data and older packages go, too.

        Raises:
            PackageError: no package of this name is there.
        """
        async with self._turn:
            known = name in self._installer.survey()[0] or self._installed.active(name)
            if not known and not (purge and self._installed.kept(name)):
                text = f"no package of {name!r} is installed; a plugin folder is yours to move away"
                raise PackageError(State.REFUSED, text)
            files = await asyncio.to_thread(self._installer.remove, name)
            await self._reload()
            await asyncio.to_thread(self._erase, name, purge)
            self._keep_refusals(but={name})
            self._audit(actor, "remove", name, "done", "with its data" if purge else "")
            return [str(file) for file in files]

    async def order_install(self, actor: str, file: str, digest: str, downgrade: bool) -> dict[str, Any]:
        """As install(), but it goes on when whoever asked goes away, and raises BusError."""
        return await self._own(self.install(actor, Path(file), digest, downgrade=downgrade))

    async def order_remove(self, actor: str, name: str, purge: bool) -> list[str]:
        """As remove(), but it goes on when whoever asked goes away, and raises BusError."""
        return await self._own(self.remove(actor, name, purge=purge))

    async def _own(self, work: Coroutine[Any, Any, _T]) -> _T:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except PackageError as error:
            raise BusError(error.state.replace(" ", "_"), error.text) from None

    async def _on_changes(self, changes: Sequence[Change]) -> None:
        try:
            for change in changes:
                log.info("%s %s", change.name, change.what)
            files = [change.name for change in changes if change.is_package]
            if files:
                await self.rescan(ITSELF, {name for file in files for name in _plugins_of(file)})
            await self._follow_folders([change for change in changes if not change.is_package])
        except SupervisorError as error:
            log.info("%s is not followed any more: %s", self._installer.plugin_dir, error.text)
        except Exception:
            # A defect of ours must not keep silent: nobody waits for the result of this.
            log.exception("changes in %s could not be followed", self._installer.plugin_dir)

    async def _follow_folders(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        outcomes = {each.plugin_id: each for each in await self._reload()}
        for outcome in outcomes.values():
            _log_outcome(outcome)
        touched = await asyncio.to_thread(self._touched, changes)
        # What the supervisor finds unchanged has the same plugin.yaml, and perhaps other code than it runs.
        await self._renew({name: at for name, at in touched.items() if _is_unchanged(outcomes.get(name))})

    def _touched(self, changes: Sequence[Change]) -> dict[str, float]:
        """The plugins in changed folders, and when a file of them was changed last."""
        from broker.packages.watching import What, last_change

        found = {}
        for change in changes:
            folder = self._installer.plugin_dir / change.name
            if change.what is not What.REMOVED:
                # A folder that is new may run already, from before it was complete: somebody started it meanwhile.
                at = inf if change.what is What.CHANGED else last_change(folder)
                found[self._installer.describe(folder).plugin_id] = at
        return found

    def _begin(self) -> None:
        from broker.packages.watching import scan

        self._installer.start()
        try:
            # Before anything is read, so that whatever comes later is a change.
            self._known = scan(self._installer.plugin_dir)
        except OSError:
            self._known = {}
        offers, strays = self._installer.survey()
        fetched = self._installer.fetch(offers, check=True)
        for name, text in fetched.repaired.items():
            log.warning("package %s is unpacked anew: %s", name, text)
        for name in self._installed.all_active().keys() - offers.keys():
            self._installed.deactivate(name)
        for name, record in fetched.records.items():
            before = self._installed.active(name)
            if record is None:
                self._installed.deactivate(name)
            elif before is None or not self._installed.folder(before).is_dir():
                self._put_in_force(ITSELF, record, before)
        self._take_refusals(ITSELF, {**strays, **fetched.refusals}, None)
        self._recall()

    def _look(self, actor: str, only: Collection[str] | None) -> _News:
        offers, strays = self._installer.survey()
        names = offers.keys() | self._installed.all_active().keys() if only is None else set(only)
        fetched = self._installer.fetch({name: offers[name] for name in names if name in offers})
        refused = self._take_refusals(actor, {**strays, **fetched.refusals}, only)
        news = _News(refused=[_refused(file, error) for file, error in refused.items()])
        for name in sorted(names):
            record, before = fetched.records.get(name), self._installed.active(name)
            if record is None and before:
                self._installed.deactivate(name)
                news.gone.append(name)
                why = "its package is not allowed any more" if name in offers else "its package file is gone"
                self._audit(actor, "remove", name, "done", why)
            elif record and before is None:
                self._put_in_force(actor, record, None)
                news.fresh = True
            elif record and before and record.digest != before.digest:
                news.replacing.append(record)
        return news

    async def _replace(self, actor: str, record: Record, before: Record | None) -> None:
        """Puts a package in force and has it run; what was there before goes on when it does not come up."""
        if before is not None and before.digest != record.digest:
            await self._prove(actor, record, before)
        await asyncio.to_thread(self._put_in_force, actor, record, before)
        await self._reload()

    async def _prove(self, actor: str, record: Record, before: Record) -> None:
        try:
            await self._upgrade(record.id, self._installed.folder(record))
        except SupervisorError as error:
            if error.code == "disabled":
                # Nothing runs that could be replaced: it is what is started when it is enabled.
                return
            if error.code not in ("busy", "cancelled", "shutting_down"):
                await asyncio.to_thread(self._throw_out, actor, record, before, error.text)
                raise _ThrownOut(State.REFUSED, error.text) from None
            raise PackageError(State.REFUSED, error.text) from None

    def _put_in_force(self, actor: str, record: Record, before: Record | None) -> None:
        if before and before.folder_name == record.folder_name:
            return
        self._installed.activate(record)
        by = f"{record.state}, signed by {record.signer}" if record.signer else f"{record.state}"
        instead = f" in the place of {before.version}" if before else ""
        log.info("package %s %s is in force%s (%s)", record.id, record.version, instead, by)
        self._audit(actor, "install", record.id, "done", f"{record.version}{instead}, {by}, {record.digest}")

    def _throw_out(self, actor: str, record: Record, before: Record, reason: str) -> None:
        self._installed.quarantine(record, reason)
        self._installed.discard(record)
        log.error("package %s %s is thrown out, %s stays: %s", record.id, record.version, before.version, reason)
        self._audit(actor, "install", record.id, "failed", f"{record.version} {record.digest}: {reason}")

    def _clear(self, names: Iterable[str]) -> None:
        for name in names:
            self._installed.clear(name)
        self._recall()

    def _leave(self, before: Record | None) -> None:
        if before:
            self._installed.discard(before)

    def _settle(self, record: Record, copy: Path, before: Record | None) -> Record:
        record = self._installer.settle(record, copy)
        self._leave(before)
        self._recall()
        return record

    def _recall(self) -> None:
        """Reads what is in force, so that whoever asks need not wait for the disk."""
        self._records = self._installed.all_active()

    def _erase(self, name: str, purge: bool) -> None:
        self._installed.clear(name)
        if purge:
            self._installed.purge(name)
            shutil.rmtree(self._data_dir / name, ignore_errors=True)
        self._recall()

    def _take_refusals(
        self, actor: str, found: Mapping[str, PackageError], only: Collection[str] | None
    ) -> dict[str, PackageError]:
        """Remembers what is refused, by file; returns what is news of it."""
        known = self._refusals
        if only is None:
            self._refusals = {}
        self._keep_refusals(but=only or ())
        # In one step, for the event loop reads it meanwhile.
        self._refusals = {**self._refusals, **{name: str(error) for name, error in found.items()}}
        news = {name: error for name, error in found.items() if known.get(name) != str(error)}
        for name, error in news.items():
            self._note(actor, name, error)
        return news

    def _keep_refusals(self, but: Collection[str]) -> None:
        """Forgets refusals of some plugins, and of files that belong to none: those are found at every look."""
        self._refusals = {
            name: text for name, text in self._refusals.items() if (of := _plugins_of(name)) and not of & set(but)
        }

    def _note(self, actor: str, file: str, error: PackageError) -> None:
        log.error("package %s is refused: %s", file, error)
        target = next(iter(_plugins_of(file)), file)
        self._audit(actor, "install", target, "refused", f"{file}: {error}")


def _plugins_of(file: str) -> set[str]:
    """The plugin that a file name tells, if it tells one."""
    parsed = parse_file_name(file)
    return {parsed[0]} if parsed else set()


def _refused(file: str, error: PackageError) -> Outcome:
    return Outcome(next(iter(_plugins_of(file)), file), FAILED, f"{file}: {error}".partition("\n")[0])


def _is_unchanged(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.result == UNCHANGED


def _told(record: Record) -> dict[str, Any]:
    return {
        "version": record.version,
        "state": str(record.told(datetime.now(UTC))),
        "signer": record.signer,
        "key": record.key,
        "digest": record.digest,
        "installed_at": record.installed_at.isoformat(),
    }


def _log_outcome(outcome: Outcome) -> None:
    if outcome.result != UNCHANGED:
        level = logging.ERROR if outcome.result == FAILED else logging.INFO
        log.log(level, "plugin %s: %s (%s)", outcome.plugin_id, outcome.result, outcome.text)
