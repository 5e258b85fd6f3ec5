"""The folders of installed packages: named by content, made beside and moved into place, one of each plugin in force.

    installed/ID/VERSION-DIGEST/        the unpacked plugin, a plugin folder like any other
    installed/ID/VERSION-DIGEST.json    what was found when it was unpacked
    installed/ID/ID-VERSION.spk         a package that was replaced or removed, to come back to
    installed/ID/quarantine.json        what did not come up, by digest
    installed/.active/ID                link to the folder in force
    installed/.staging/                 what is being made; nothing in it counts

No plugin id begins with a dot. A link is exchanged by one rename, so a crash leaves the old or the new state, and
whatever no link leads to is swept away at the next start.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from broker.packages.errors import State
from broker.packages.names import SUFFIX
from broker.packages.opened import Opened
from broker.packages.unpack import refusal

DIGEST_CHARS = 16
ACTIVE, STAGING = ".active", ".staging"


class Mark(Struct, frozen=True):
    """What tells, without reading it, that a file is still the same."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Mark":
        """From what the file system says."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


class Record(Struct, frozen=True):
    """An unpacked package.

    Args:
        state: what its signature was worth when it was unpacked.
        files: SHA-256 of each file as it was written.
        source: the package file it came from, None when that was not in the plugin folder.
    """

    id: str
    version: str
    digest: str
    state: State
    key: str
    signer: str
    installed_at: datetime
    files: dict[str, str]
    expires: datetime | None = None
    source: Mark | None = None

    def told(self, now: datetime) -> State:
        """Its state today; what is installed goes on when it expires."""
        late = self.expires is not None and self.expires <= now
        return State.EXPIRED if late and self.state is State.VALID else self.state

    @property
    def folder_name(self) -> str:
        """The name of its folder."""
        return f"{self.version}-{self.digest[:DIGEST_CHARS]}"


class InstalledPackages:
    """Everything below `installed/`.

    Args:
        root: made when it is first used.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.links = root / ACTIVE
        self._staging = root / STAGING

    def prepare(self) -> None:
        """Makes the folders; raises PackageError."""
        try:
            for folder in (self.root, self.links, self._staging):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise refusal(error, self.root) from None

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A private folder that is gone afterwards, whatever happens."""
        self.prepare()
        try:
            place = Path(tempfile.mkdtemp(dir=self._staging))
        except OSError as error:
            raise refusal(error, self.root) from None
        try:
            yield place
        finally:
            _remove(place)

    def folder(self, record: Record) -> Path:
        """Where its files are."""
        return self.root / record.id / record.folder_name

    def put(self, package: Opened, unpacked: Path, hashes: dict[str, str], source: Mark | None) -> Record:
        """Moves an unpacked package into place; it is not in force by that.

        Raises:
            PackageError: the disk does not take it; nothing of it is left.
        """
        manifest, verdict = package.manifest, package.verdict
        now = datetime.now(UTC).replace(microsecond=0)
        facts = (manifest.id, manifest.version, package.contents.digest)
        record = Record(*facts, package.state, verdict.key, verdict.signer, now, hashes, manifest.expires, source)
        place = self.folder(record)
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            if place.is_dir() and self.damage(record):
                _remove(place)
            if not place.is_dir():
                unpacked.rename(place)
            _write(_beside(place), msgspec.json.encode(record))
            _flush(place.parent)
        except OSError as error:
            _remove(place)
            raise refusal(error, self.root) from None
        return record

    def active(self, plugin_id: str) -> Record | None:
        """What is in force of a plugin."""
        try:
            return _read(_beside(Path(self.links / plugin_id).resolve(strict=True)))
        except OSError:
            return None

    def all_active(self) -> dict[str, Record]:
        """What is in force, by plugin id."""
        names = sorted(os.listdir(self.links)) if self.links.is_dir() else []
        found = {name: self.active(name) for name in names if not name.startswith(".")}
        return {name: record for name, record in found.items() if record}

    def activate(self, record: Record) -> None:
        """Puts a package in force, in the place of any other of the same plugin; raises PackageError."""
        link, draft = self.links / record.id, self.links / f".{record.id}.part"
        try:
            draft.unlink(missing_ok=True)
            draft.symlink_to(Path("..") / record.id / record.folder_name, target_is_directory=True)
            draft.replace(link)
            _flush(self.links)
        except OSError as error:
            raise refusal(error, self.root) from None

    def deactivate(self, plugin_id: str) -> None:
        """Takes a plugin out of force."""
        (self.links / plugin_id).unlink(missing_ok=True)

    def remember(self, record: Record, source: Mark) -> Record:
        """Notes from which file a package comes, so that it is not looked at again while that stays the same."""
        record = msgspec.structs.replace(record, source=source)
        _write(_beside(self.folder(record)), msgspec.json.encode(record))
        return record

    def discard(self, record: Record) -> None:
        """Removes an unpacked package, unless it is in force."""
        active = self.active(record.id)
        if active is None or active.folder_name != record.folder_name:
            _remove(self.folder(record))
            _beside(self.folder(record)).unlink(missing_ok=True)
            with suppress(OSError):
                # Only when nothing else is in it.
                self.folder(record).parent.rmdir()

    def damage(self, record: Record) -> str:
        """What of its files is not as it was unpacked, "" when everything is."""
        import hashlib

        folder = self.folder(record)
        for path, wanted in record.files.items():
            try:
                with (folder / path).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                return f"{path} cannot be read: {error.strerror}"
            if found != wanted:
                return f"{path} was changed after it was installed"
        return ""

    def keep(self, file: Path, plugin_id: str) -> None:
        """Puts a package file aside that is not wanted in the plugin folder any more."""
        try:
            (self.root / plugin_id).mkdir(mode=0o700, parents=True, exist_ok=True)
            file.replace(self.root / plugin_id / file.name)
        except OSError:
            # Another file system, perhaps; an old version to come back to is a convenience, no promise.
            file.unlink(missing_ok=True)

    def kept(self, plugin_id: str) -> list[Path]:
        """Package files that were put aside."""
        return sorted((self.root / plugin_id).glob(f"*{SUFFIX}"))

    def quarantine(self, record: Record, reason: str) -> None:
        """Notes that a package did not come up and must not be tried again by itself."""
        known = {**self.quarantined(record.id), record.digest: reason}
        _write(self.root / record.id / "quarantine.json", msgspec.json.encode(known))

    def pardon(self, plugin_id: str, digest: str) -> None:
        """Lets a package be tried again, because a person said so."""
        known = self.quarantined(plugin_id)
        if known.pop(digest, None) is not None:
            _write(self.root / plugin_id / "quarantine.json", msgspec.json.encode(known))

    def quarantined(self, plugin_id: str) -> dict[str, str]:
        """Why packages of a plugin are not tried again, by digest."""
        try:
            return msgspec.json.decode((self.root / plugin_id / "quarantine.json").read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError):
            return {}

    def clear(self, plugin_id: str) -> None:
        """Removes the unpacked folders of a plugin that is not in force; packages that were put aside stay."""
        for place in (self.root / plugin_id).glob("*-*"):
            if place.suffix != SUFFIX:
                _remove(place)

    def purge(self, plugin_id: str) -> None:
        """Removes everything that is known of a plugin."""
        self.deactivate(plugin_id)
        _remove(self.root / plugin_id)

    def sweep(self) -> None:
        """Removes what no link leads to: the traces of a broker that did not end in order. For its start only."""
        if not self.root.is_dir():
            return
        for place in self._staging.iterdir() if self._staging.is_dir() else ():
            _remove(place)
        in_force = {self.folder(record) for record in self.all_active().values()}
        for folder in self.root.glob("[!.]*/*/"):
            if folder not in in_force:
                _remove(folder)
        for file in self.root.glob("[!.]*/*.json"):
            if file.name != "quarantine.json" and not file.with_suffix("").is_dir():
                file.unlink(missing_ok=True)


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _read(file: Path) -> Record:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Record)
    except msgspec.MsgspecError:
        raise OSError(f"{file} is not what was written there") from None


def _write(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.part")
    with draft.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)


def _flush(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)
