"""A package file that is looked at: copied once, so that nobody can change it meanwhile, then judged and unpacked."""

import mmap
import os
import stat
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from broker.packages.bounds import BOUNDS, Bounds
from broker.packages.contents import Contents, read_archive
from broker.packages.encryption import Cipher, unlock
from broker.packages.errors import PackageError, State
from broker.packages.keys import TrustedKey, read_recipient, read_trusted
from broker.packages.manifest import PackageManifest
from broker.packages.signature import Verdict, judge
from broker.packages.unpack import unpack

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator says of packages.

    Args:
        trusted: folder of the public keys by which packages are accepted, `NAME.pub`.
        recipient: file of the broker's private RSA key; it may be missing.
        allow_unsigned: plugin ids for which nobody whom the broker trusts need have signed.
    """

    trusted: Path
    recipient: Path
    allow_unsigned: frozenset[str] = frozenset()

    def keys(self) -> dict[str, TrustedKey]:
        """The trusted keys by id; a file that is no key admits nobody."""
        return read_trusted(self.trusted)[0]

    def still_admit(self, plugin_id: str, state: State, key: str, trusted: Container[str]) -> bool:
        """Whether what was admitted when it was installed would be so today, but for its age."""
        return plugin_id in self.allow_unsigned if state is State.UNSIGNED else key in trusted


@dataclass(frozen=True, slots=True)
class Opened:
    """A package that is whole, and what its signature is worth."""

    contents: Contents
    verdict: Verdict
    expired: bool

    @property
    def manifest(self) -> PackageManifest:
        """What it says of itself."""
        return self.contents.manifest

    @property
    def state(self) -> State:
        """Where it stands, in one word."""
        return State.EXPIRED if self.expired and self.verdict.state is State.VALID else self.verdict.state

    def admit(self, rules: Rules) -> None:
        """Raises PackageError unless the operator lets it be installed."""
        name = self.manifest.id
        if self.verdict.state is State.UNSIGNED and name not in rules.allow_unsigned:
            hint = f', or allow it with plugin_manager.allow_unsigned = ["{name}"]'
            raise PackageError(State.UNSIGNED, self.verdict.text + hint)
        if self.verdict.state is State.UNKNOWN_KEY:
            raise PackageError(State.UNKNOWN_KEY, self.verdict.text)
        if self.expired:
            raise PackageError(State.EXPIRED, f"it expired at {self.manifest.expires}: get a newer one from its maker")

    def unpack(self, folder: Path, private: "RSAPrivateKey | None") -> dict[str, str]:
        """Writes its files into a new folder, returns their SHA-256; raises PackageError and leaves it unfinished."""
        return unpack(self.contents, folder, self._cipher(private))

    def _cipher(self, private: "RSAPrivateKey | None") -> Cipher | None:
        found = self.manifest.encryption
        return unlock(found, private, f"{self.manifest.id}\0{self.manifest.version}") if found else None


def look(file: Path, trusted: Mapping[str, TrustedKey], now: datetime | None = None, bounds: Bounds = BOUNDS) -> Opened:
    """A package file, whole and judged.

    Args:
        file: nobody else may change it meanwhile, see `private_copy`.

    Raises:
        PackageError: it is not whole; whether a whole one is welcome `admit` says.
    """
    with file.open("rb") as source:
        data = _mapped(source.fileno())
    contents = read_archive(data, bounds)
    verdict = judge(contents.raw, contents.signature, trusted)
    contents.check_files()
    return Opened(contents, verdict, contents.manifest.expired(now or datetime.now(UTC)))


def private_copy(file: Path, to: Path, bounds: Bounds = BOUNDS) -> os.stat_result:
    """Copies a package file from one open descriptor, so that what is checked is what is used; returns its status.

    Raises:
        PackageError: it is not a plain file, too large, or cannot be read or copied.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        why = "is a symbolic link" if file.is_symlink() else f"cannot be read: {error.strerror}"
        raise PackageError(State.REFUSED, f"{file} {why}") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise PackageError(State.REFUSED, f"{file} is no plain file")
    with os.fdopen(fd, "rb") as source:
        if status.st_size > bounds.package:
            text = f"the file has {status.st_size} bytes, at most {bounds.package} are allowed"
            raise PackageError(State.UNSAFE, text)
        with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            # No more than was there at the beginning, whoever goes on writing.
            left = status.st_size
            while left and (piece := source.read(min(left, _STEP))):
                copy.write(piece)
                left -= len(piece)
        return status


def own_key(rules: Rules) -> "RSAPrivateKey | None":
    """The broker's private key for encrypted packages; raises KeyFileError for a file that is none."""
    return read_recipient(rules.recipient)


def _mapped(fd: int) -> bytes | memoryview:
    # Never closed by hand: it goes with the last view of it.
    return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ)) if os.fstat(fd).st_size else b""
