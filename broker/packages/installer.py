"""Decides which package of a plugin is to be in force, and brings package files into the plugin folder and out of it.

The package files in the plugin folder are what is wanted; the folders of installed packages follow them. Everything
here reads and writes files, so none of it is for the thread of an event loop.
"""

import os
import tempfile
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import Version

from broker.packages.errors import PackageError, State
from broker.packages.installed import InstalledPackages, Mark, Record
from broker.packages.names import file_name, parse_file_name
from broker.packages.opened import private_copy
from broker.packages.unpack import refusal
from broker.packages.watching import is_package
from broker.packages.workshop import Workshop

_INCOMING = ".incoming-"


@dataclass(frozen=True, slots=True)
class Offer:
    """A package file in the plugin folder, by its name."""

    plugin_id: str
    version: Version
    file: Path
    mark: Mark


@dataclass(frozen=True, slots=True)
class Description:
    """What the `plugin.yaml` in a package says; `fault` when it cannot be used."""

    plugin_id: str
    version: str
    fault: str = ""


@dataclass(slots=True)
class Fetched:
    """What is to be in force after a look at the plugin folder.

    Args:
        records: by plugin id; None where nothing may run any more.
        refusals: why a file is not taken, by its name.
        repaired: what was wrong with an installed folder that was unpacked anew, by plugin id.
    """

    records: dict[str, Record | None] = field(default_factory=dict)
    refusals: dict[str, PackageError] = field(default_factory=dict)
    repaired: dict[str, str] = field(default_factory=dict)


class Installer:
    """The packages of one plugin folder.

    Args:
        describe: reads the `plugin.yaml` of an unpacked package.
    """

    def __init__(
        self,
        installed: InstalledPackages,
        workshop: Workshop,
        plugin_dir: Path,
        describe: Callable[[Path], Description],
    ) -> None:
        self.installed = installed
        self.workshop = workshop
        self.plugin_dir = plugin_dir
        self.describe = describe

    def start(self) -> None:
        """Removes what an earlier broker left unfinished; raises PackageError when there is no place to install to."""
        self.installed.prepare()
        self.installed.sweep()
        for draft in self.plugin_dir.glob(f"{_INCOMING}*"):
            draft.unlink(missing_ok=True)

    def survey(self) -> tuple[dict[str, list[Offer]], dict[str, PackageError]]:
        """The package files by plugin id, newest version first, and those whose name tells nothing."""
        offers: dict[str, list[Offer]] = {}
        strays: dict[str, PackageError] = {}
        for file in self._package_files():
            parsed = parse_file_name(file.name)
            if parsed is None:
                strays[file.name] = PackageError(State.REFUSED, "is not named ID-VERSION.spk, such as hello-1.0.0.spk")
            elif mark := _mark_of(file):
                offers.setdefault(parsed[0], []).append(Offer(*parsed, file, mark))
        for each in offers.values():
            each.sort(key=lambda offer: offer.version, reverse=True)
        return offers, strays

    def fetch(self, offers: Mapping[str, list[Offer]], *, check: bool = False) -> Fetched:
        """Unpacks what is new, so that it only need be put in force.

        Args:
            offers: of the plugins to be looked at.
            check: also read every file that is installed, to see whether it still is what was unpacked.
        """
        fetched = Fetched()
        trusted = self.workshop.rules.keys()
        left: dict[str, list[Offer]] = {}
        for plugin_id, of_plugin in offers.items():
            current = self._admitted(plugin_id, trusted, fetched, check=check)
            fetched.records[plugin_id] = current
            if not _is_current(of_plugin[0], current):
                left[plugin_id] = list(of_plugin)
        while left:
            now = [each.pop(0) for each in left.values()]
            for offer, found in zip(now, self.workshop.unpack([offer.file for offer in now]), strict=True):
                if self._take(offer, found, fetched):
                    del left[offer.plugin_id]
            # The next best of a plugin is looked at only when its best was refused.
            left = {name: rest for name, rest in left.items() if self._goes_on(rest, fetched.records[name])}
        return fetched

    def bring(self, file: Path, expected: str = "") -> tuple[Record, Path]:
        """Unpacks a package file from anywhere, and puts a copy of it beside the plugin folder's files.

        Args:
            expected: digest of the package that was agreed to, if somebody was asked.

        Returns:
            What was unpacked, and the copy, not yet under its name.

        Raises:
            PackageError: it is refused, and nothing of it is left.
        """
        try:
            fd, name = tempfile.mkstemp(prefix=_INCOMING, dir=self.plugin_dir)
        except OSError as error:
            raise refusal(error, self.plugin_dir / file.name) from None
        os.close(fd)
        copy = Path(name)
        copy.unlink()
        try:
            private_copy(file, copy)
            return self._brought(copy, expected), copy
        except OSError as error:
            copy.unlink(missing_ok=True)
            raise refusal(error, copy) from None
        except PackageError:
            copy.unlink(missing_ok=True)
            raise

    def settle(self, record: Record, copy: Path) -> Record:
        """Gives the copy its name, and puts packages of other versions of the plugin aside."""
        file = self.plugin_dir / file_name(record.id, record.version)
        try:
            copy.replace(file)
        except OSError as error:
            raise refusal(error, file) from None
        for offer in self.survey()[0].get(record.id, []):
            if offer.file != file:
                self.installed.keep(offer.file, record.id)
        return self.installed.remember(record, Mark.of(file.stat()))

    def drop(self, record: Record, copy: Path) -> None:
        """Forgets what was brought and did not come up."""
        copy.unlink(missing_ok=True)
        self.installed.discard(record)

    def remove(self, plugin_id: str) -> list[Path]:
        """Takes the package files of a plugin out of the plugin folder and out of force; returns them."""
        files = [offer.file for offer in self.survey()[0].get(plugin_id, [])]
        for file in files:
            self.installed.keep(file, plugin_id)
        self.installed.deactivate(plugin_id)
        return files

    def _package_files(self) -> Iterable[Path]:
        try:
            entries = sorted(os.listdir(self.plugin_dir))
        except OSError:
            # The supervisor tells of it: it reads the same folder.
            return []
        return [self.plugin_dir / name for name in entries if is_package(name) and not name.startswith(".")]

    def _admitted(self, plugin_id: str, trusted: Container[str], fetched: Fetched, *, check: bool) -> Record | None:
        """What is in force, if it may be and, when that is to be checked, is as it was unpacked."""
        current = self.installed.active(plugin_id)
        rules = self.workshop.rules
        if current is None or not rules.still_admit(plugin_id, current.state, current.key, trusted):
            return None
        if check and (damage := self.installed.damage(current)):
            fetched.repaired[plugin_id] = damage
            return None
        return current

    def _take(self, offer: Offer, found: Record | PackageError, fetched: Fetched) -> bool:
        """Whether an offer is what will be in force."""
        current = fetched.records[offer.plugin_id]
        try:
            record = self._checked(offer, found, current)
        except PackageError as error:
            fetched.refusals[offer.file.name] = error
            return False
        fetched.records[offer.plugin_id] = record
        return True

    def _checked(self, offer: Offer, found: Record | PackageError, current: Record | None) -> Record:
        if isinstance(found, PackageError):
            raise found
        try:
            if file_name(found.id, found.version) != offer.file.name:
                text = f"holds {found.id} {found.version}: rename it to {file_name(found.id, found.version)}"
                raise PackageError(State.REFUSED, text)
            self._check_description(found)
            check_successor(found, current)
            if reason := self.installed.quarantined(found.id).get(found.digest):
                text = f"did not come up before, 'broker install' tries it again: {reason}"
                raise PackageError(State.REFUSED, text)
        except PackageError:
            self.installed.discard(found)
            raise
        return found

    def _brought(self, copy: Path, expected: str) -> Record:
        found = self.workshop.unpack([copy])[0]
        if isinstance(found, PackageError):
            raise found
        try:
            if expected and found.digest != expected:
                raise PackageError(
                    State.REFUSED, "the file is not the one any more that was agreed to: look at it again"
                )
            self._check_description(found)
            check_successor(found, self.installed.active(found.id))
        except PackageError:
            self.installed.discard(found)
            raise
        self.installed.pardon(found.id, found.digest)
        return found

    def _check_description(self, record: Record) -> None:
        """What runs is what `plugin.yaml` says; so that must be what was signed for."""
        said = self.describe(self.installed.folder(record))
        if said.fault:
            inside = str(self.installed.folder(record)) + "/"
            raise PackageError(State.MALFORMED, said.fault.replace(inside, ""))
        if (self.plugin_dir / record.id).is_dir():
            text = f"{self.plugin_dir / record.id} is a plugin of the same name: move that folder away first"
            raise PackageError(State.REFUSED, text)
        if (said.plugin_id, said.version) != (record.id, record.version):
            text = (
                f"its plugin.yaml is of {said.plugin_id} {said.version}, its manifest of {record.id} {record.version}"
            )
            raise PackageError(State.MALFORMED, f"{text}: build it anew")

    def _goes_on(self, rest: list[Offer], current: Record | None) -> bool:
        return bool(rest) and not _is_current(rest[0], current)


def check_successor(found: Record, current: Record | None) -> None:
    """Raises PackageError for a package that has the version of the installed one, and is another."""
    if current and current.version == found.version and current.digest != found.digest:
        raise PackageError(
            State.REFUSED,
            f"{found.id} {found.version} is installed with another content ({current.digest[:16]}, this one is"
            f" {found.digest[:16]}): give what has changed a new version",
        )


def _is_current(offer: Offer, current: Record | None) -> bool:
    """Whether an offer is what is in force already, without a look into the file."""
    return current is not None and current.source == offer.mark and current.version == str(offer.version)


def _mark_of(file: Path) -> Mark | None:
    try:
        return Mark.of(file.lstat())
    except OSError:
        return None


def refuse_older(found: Record, current: Record | None, *, downgrade: bool) -> None:
    """Raises PackageError for a package that is older than the installed one, unless that is meant."""
    if current and not downgrade and Version(found.version) < Version(current.version):
        text = (
            f"{found.id} {current.version} is installed, which is newer than {found.version}: --downgrade replaces it"
        )
        raise PackageError(State.REFUSED, text)
