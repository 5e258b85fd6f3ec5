"""A package as bytes: its structure, its manifest and its files, without any file system and any key."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from broker.packages.archive import Archive, open_archive
from broker.packages.bounds import BOUNDS, MAX_MANIFEST_BYTES, MAX_SIGNATURE_BYTES, Bounds
from broker.packages.encryption import Cipher
from broker.packages.errors import PackageError, State
from broker.packages.manifest import Listed, PackageManifest, decode, digest_of

MANIFEST_ENTRY = "MANIFEST.json"
SIGNATURE_ENTRY = "SIGNATURE.json"
FILES = "files/"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a package holds; its structure is sound, and its files are those that its manifest lists.

    Args:
        raw: the manifest's bytes, which are what a signature covers.
        signature: None when there is none.
    """

    raw: bytes
    manifest: PackageManifest
    signature: bytes | None
    _archive: Archive

    @property
    def digest(self) -> str:
        """Identity of what is in it, whoever signed it."""
        return digest_of(self.raw)

    def chunks(self, listed: Listed, cipher: Cipher | None = None) -> Iterator[bytes]:
        """A file's content piece by piece; it counts only when the last piece has come without an error.

        Args:
            cipher: decrypts it; without one the bytes are those in the package.

        Raises:
            PackageError: MODIFIED or UNSAFE.
        """
        packed = self._checked(listed)
        if cipher is None:
            return packed
        return cipher.decrypt(self.manifest.files.index(listed), listed.path, packed)

    def check_files(self) -> None:
        """Reads everything once; raises PackageError for the first file that is not as listed."""
        for listed in self.manifest.files:
            for _ in self._checked(listed):
                pass

    def _checked(self, listed: Listed) -> Iterator[bytes]:
        found = hashlib.sha256()
        for piece in self._archive.chunks(self._archive.entries[FILES + listed.path]):
            found.update(piece)
            yield piece
        if found.hexdigest() != listed.sha256:
            raise PackageError(State.MODIFIED, f"{listed.path!r} is not the file that the manifest lists: get it anew")


def read_archive(data: bytes | memoryview, bounds: Bounds = BOUNDS) -> Contents:
    """Reads a package from any bytes, and nothing but them.

    Raises:
        PackageError: what is wrong; no other exception, whatever the bytes are.
    """
    archive = open_archive(data, bounds)
    if MANIFEST_ENTRY not in archive.entries:
        raise PackageError(State.MALFORMED, f"it has no {MANIFEST_ENTRY}: build it with 'broker package build'")
    raw = archive.content(MANIFEST_ENTRY, MAX_MANIFEST_BYTES)
    signature = None
    if SIGNATURE_ENTRY in archive.entries:
        signature = archive.content(SIGNATURE_ENTRY, MAX_SIGNATURE_BYTES)
    manifest = decode(raw)
    _compare(archive, manifest)
    return Contents(raw, manifest, signature, archive)


def _compare(archive: Archive, manifest: PackageManifest) -> None:
    listed = {FILES + each.path: each for each in manifest.files}
    present = archive.entries.keys() - {MANIFEST_ENTRY, SIGNATURE_ENTRY}
    if further := sorted(present - listed.keys()):
        raise PackageError(State.MODIFIED, f"it holds {further[0]!r}, which its manifest does not list")
    if missing := sorted(listed.keys() - present):
        raise PackageError(State.MODIFIED, f"its manifest lists {missing[0]!r}, which it does not hold")
    for name, each in listed.items():
        if archive.entries[name].size != each.size:
            found = archive.entries[name].size
            raise PackageError(State.MODIFIED, f"{each.path!r} has {found} bytes, its manifest says {each.size}")
