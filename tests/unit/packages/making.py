"""Packages for tests: good ones, and zip files that no ordinary tool would make."""

import hashlib
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from broker.packages.build import write_zip
from broker.packages.contents import FILES, MANIFEST_ENTRY
from broker.packages.manifest import FORMAT, PLAIN, Listed, PackageManifest, encode

PLUGIN_YAML = b'name: small\nversion: "1.0.0"\n'
FILES_OF_SMALL = {"plugin.yaml": PLUGIN_YAML, "main.py": b"print('small')\n"}


def make_folder(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    """A plugin folder."""
    for path, content in (files or FILES_OF_SMALL).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def listed(path: str, content: bytes) -> Listed:
    """As a manifest lists a file."""
    return Listed(path, len(content), PLAIN, hashlib.sha256(content).hexdigest())


def manifest_of(files: dict[str, bytes]) -> bytes:
    """A manifest that lists these files, in this order, whatever their names are."""
    every = tuple(listed(path, content) for path, content in files.items())
    return encode(PackageManifest(FORMAT, "small", "1.0.0", every))


def package_of(files: dict[str, bytes] | None = None, listed_files: dict[str, bytes] | None = None) -> bytes:
    """An unsigned package; `listed_files` makes its manifest say something else than it holds."""
    files = FILES_OF_SMALL if files is None else files
    raw = manifest_of(files if listed_files is None else listed_files)
    return write_zip([(MANIFEST_ENTRY, raw), *((FILES + path, content) for path, content in files.items())])


@dataclass
class Raw:
    """One entry of a zip file in which everything can be wrong."""

    name: bytes
    content: bytes = b"x"
    mode: int = stat.S_IFREG | 0o644
    flags: int = 1 << 11
    method: int = 8
    size: int | None = None
    offset: int | None = None
    own_name: bytes | None = None
    crc: int | None = None

    def packed(self) -> bytes:
        """As it stands in the file."""
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(self.content) + packer.flush() if self.method == 8 else self.content

    def facts(self) -> tuple[int, ...]:
        """What both of its headers say."""
        size = len(self.content) if self.size is None else self.size
        crc = zlib.crc32(self.content) if self.crc is None else self.crc
        return (self.flags, self.method, 0, 33, crc, len(self.packed()), size)


def raw_zip(*entries: Raw) -> bytes:
    """A zip file of these entries."""
    body, directory = b"", b""
    for each in entries:
        offset = len(body) if each.offset is None else each.offset
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", 3 << 8, 20, *each.facts(), len(each.name), 0, 0, 0, 0, each.mode << 16, offset
        )
        directory += each.name
        name = each.name if each.own_name is None else each.own_name
        body += struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, *each.facts(), len(name), 0) + name + each.packed()
    number = len(entries)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, number, number, len(directory), len(body), 0)
    return body + directory + end
