"""Makes a package of a plugin folder: the same folder always gives the same bytes, unless it is encrypted."""

import hashlib
import os
import stat
import struct
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs
from packaging.version import Version

from broker.packages.archive import CENTRAL_MAGIC, DEFLATED, END_MAGIC, LOCAL_MAGIC, STORED
from broker.packages.bounds import BOUNDS
from broker.packages.contents import FILES, MANIFEST_ENTRY, SIGNATURE_ENTRY, read_archive
from broker.packages.encryption import Cipher, lock
from broker.packages.errors import PackageError, State
from broker.packages.manifest import FORMAT, PLAIN, RUNNABLE, Listed, PackageManifest, encode
from broker.packages.names import check_path, check_together
from broker.packages.signature import sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

# What tools leave behind in a folder and no plugin needs.
_LITTER = frozenset({"__pycache__"})
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_UTF8 = 1 << 11
# 1980-01-01, the first day that a zip file can tell.
_TIME, _DATE = 0, 1 << 5 | 1
_NEEDED = 20
_MADE_BY_UNIX = 3 << 8 | _NEEDED


@dataclass(frozen=True, slots=True)
class _File:
    """A file on its way into a package."""

    path: str
    runnable: bool
    content: bytes


def build(
    folder: Path,
    plugin_id: str,
    version: Version,
    *,
    expires: datetime | None = None,
    recipient: "RSAPublicKey | None" = None,
) -> bytes:
    """The bytes of an unsigned package.

    Args:
        folder: everything in it is packed, but for names that begin with a dot and what Python caches.
        expires: after this moment it is not installed any more.
        recipient: only the holder of this key's private part will be able to read it.

    Raises:
        PackageError: the folder holds what no package may hold.
    """
    files = sorted(_collect(folder), key=lambda each: each.path)
    check_together(each.path for each in files)
    manifest = PackageManifest(FORMAT, plugin_id, str(version), (), expires)
    if recipient is not None:
        cipher, encryption = lock(recipient, f"{plugin_id}\0{version}")
        manifest = structs.replace(manifest, encryption=encryption)
        files = [_locked(cipher, number, each) for number, each in enumerate(files)]
    raw = encode(structs.replace(manifest, files=tuple(map(_list, files))))
    packed = write_zip([(MANIFEST_ENTRY, raw), *((FILES + each.path, each.content) for each in files)])
    # Whoever builds hears of bounds that whoever installs would otherwise run into.
    read_archive(packed)
    return packed


def add_signature(package: bytes, key: "Ed25519PrivateKey") -> bytes:
    """The package signed with a key, in the place of any other signature; raises PackageError for a bad package."""
    contents = read_archive(package)
    contents.check_files()
    files = [(FILES + each.path, b"".join(contents.chunks(each))) for each in contents.manifest.files]
    return write_zip([(MANIFEST_ENTRY, contents.raw), (SIGNATURE_ENTRY, sign(contents.raw, key)), *files])


def write_zip(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip file of these entries, in this order, without anything that depends on time or machine."""
    body, directory, number = bytearray(), bytearray(), 0
    for name, content in entries:
        raw, method, packed = name.encode(), *_packed(content)
        facts = (_UTF8, method, _TIME, _DATE, zlib.crc32(content), len(packed), len(content), len(raw))
        mode = (stat.S_IFREG | 0o644) << 16
        directory += _CENTRAL.pack(CENTRAL_MAGIC, _MADE_BY_UNIX, _NEEDED, *facts, 0, 0, 0, 0, mode, len(body)) + raw
        body += _LOCAL.pack(LOCAL_MAGIC, _NEEDED, *facts, 0) + raw + packed
        number += 1
    return bytes(body + directory + _END.pack(END_MAGIC, 0, 0, number, number, len(directory), len(body), 0))


def _packed(content: bytes) -> tuple[int, bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(content) + packer.flush()
    # A file that is all one byte would look like a bomb to whoever unpacks it.
    dense = len(content) > BOUNDS.slack + BOUNDS.ratio * len(packed)
    return (STORED, content) if dense or len(packed) >= len(content) else (DEFLATED, packed)


def _collect(folder: Path) -> Iterator[_File]:
    for place, folders, names in os.walk(folder, onerror=_cannot_read):
        folders[:] = [name for name in folders if not _is_litter(name)]
        for name in [*names, *(each for each in folders if Path(place, each).is_symlink())]:
            if not _is_litter(name):
                yield _read(Path(place, name), folder)


def _read(file: Path, folder: Path) -> _File:
    path = check_path(unicodedata.normalize("NFC", file.relative_to(folder).as_posix()))
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as source:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise PackageError(State.UNSAFE, f"{file} is no plain file: a package holds nothing else")
            if status.st_size > BOUNDS.file:
                raise PackageError(State.UNSAFE, f"{file} has more than {BOUNDS.file} bytes: keep such data elsewhere")
            return _File(path, bool(status.st_mode & stat.S_IXUSR), source.read())
    except OSError as error:
        if file.is_symlink():
            raise PackageError(State.UNSAFE, f"{file} is a symbolic link: put the file itself in its place") from None
        raise PackageError(State.REFUSED, f"{file} cannot be read: {error.strerror}") from None


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in _LITTER or name.endswith((".pyc", "~"))


def _cannot_read(error: OSError) -> None:
    raise PackageError(State.REFUSED, f"{error.filename} cannot be read: {error.strerror}")


def _locked(cipher: Cipher, number: int, file: _File) -> _File:
    return replace(file, content=cipher.encrypt(number, file.path, file.content))


def _list(file: _File) -> Listed:
    mode = RUNNABLE if file.runnable else PLAIN
    return Listed(file.path, len(file.content), mode, hashlib.sha256(file.content).hexdigest())
