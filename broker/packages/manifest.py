"""The list of everything in a package. Its bytes, as they stand in the file, are what is signed and what counts."""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct
from packaging.version import InvalidVersion, Version

from broker.packages.errors import PackageError, State
from broker.packages.names import check_path, check_together, file_name
from plugin_sdk.wire.subjects import BadSubject, check_name

FORMAT = 1
PLUGIN_FILE = "plugin.yaml"

# Whether a file can be run is all that a package says of its mode; the rest is the broker's to decide.
Mode = Literal["0644", "0755"]
PLAIN: Mode = "0644"
RUNNABLE: Mode = "0755"

Algorithm = Literal["RSA-OAEP-SHA256 AES-256-GCM"]
ALGORITHM: Algorithm = "RSA-OAEP-SHA256 AES-256-GCM"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Listed(Struct, frozen=True, forbid_unknown_fields=True):
    """One file: its bytes as they are in the package, encrypted ones as such."""

    path: str
    size: int
    mode: Mode
    sha256: str


class Encryption(Struct, frozen=True, forbid_unknown_fields=True):
    """To whom the files are encrypted.

    Args:
        recipient: id of the RSA key.
        key: the key of the files, encrypted to that RSA key.
    """

    algorithm: Algorithm
    recipient: str
    key: bytes


class PackageManifest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a package says of itself.

    Args:
        expires: after this moment it is not installed any more.
    """

    format: int
    id: str
    version: str
    files: tuple[Listed, ...]
    expires: datetime | None = None
    encryption: Encryption | None = None

    @property
    def file_name(self) -> str:
        """How the package file must be called."""
        return file_name(self.id, self.version)

    def expired(self, now: datetime) -> bool:
        """Whether it is too late to install it."""
        return self.expires is not None and self.expires <= now


def encode(manifest: PackageManifest) -> bytes:
    """The bytes of a manifest; the same manifest always gives the same."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def digest_of(raw: bytes) -> str:
    """The identity of a package: whoever agrees on the manifest agrees on every file."""
    return hashlib.sha256(raw).hexdigest()


def decode(raw: bytes) -> PackageManifest:
    """Reads and checks a manifest.

    Raises:
        PackageError: MALFORMED, or UNSAFE for names that must not be unpacked.
    """
    try:
        manifest = msgspec.json.decode(raw, type=PackageManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(_newer(raw) or f"it is not of format {FORMAT}: {error}") from None
    if manifest.format != FORMAT:
        raise _wrong(_newer(raw))
    _check_identity(manifest)
    _check_files(manifest.files)
    if manifest.expires and manifest.expires.tzinfo is None:
        raise _wrong("'expires' has no time zone")
    return manifest


def parse_moment(text: str) -> datetime:
    """A date, which counts to its beginning in UTC, or a date with time; raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _check_identity(manifest: PackageManifest) -> None:
    try:
        check_name(manifest.id)
        version = str(Version(manifest.version))
    except (BadSubject, InvalidVersion) as error:
        raise _wrong(str(error)) from None
    if version != manifest.version:
        raise _wrong(f"version {manifest.version!r} is not written in its normal form, {version!r}")


def _check_files(files: Sequence[Listed]) -> None:
    for each in files:
        check_path(each.path)
        if each.size < 0 or not _SHA256.fullmatch(each.sha256):
            raise _wrong(f"size or sha256 of {each.path!r} is not of the right form")
    check_together(each.path for each in files)
    if PLUGIN_FILE not in {each.path for each in files}:
        raise _wrong(f"it lists no {PLUGIN_FILE}")


class _Head(Struct):
    format: int


def _newer(raw: bytes) -> str:
    try:
        found = msgspec.json.decode(raw, type=_Head).format
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return f"it is of format {found}, this broker knows {FORMAT}: upgrade the broker" if found != FORMAT else ""


def _wrong(text: str) -> PackageError:
    return PackageError(State.MALFORMED, f"its manifest cannot be used: {text}")
