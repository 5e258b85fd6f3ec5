"""Reads the zip file that a package is, strictly: what two readers could understand differently is refused.

The entries must fill the file from its first byte to the central directory, in order, without gap or overlap, and the
directory must fill the rest. That leaves no room for a second archive inside, for entries that share their data (the
densest bombs), or for anything that is not checked. The layout is that of APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from broker.packages.bounds import BOUNDS, Bounds
from broker.packages.errors import PackageError, State

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
LOCAL_MAGIC, CENTRAL_MAGIC, END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

STORED, DEFLATED = 0, 8
_UTF8 = 1 << 11
# Bits 1 and 2 tell how hard deflate tried; nothing else may be set.
_HARMLESS = _UTF8 | 0b110
_UNIX = 3
_ZIP64 = 0xFFFFFFFF
_STEP = 64 * 1024
_COMMENT_BYTES = 0xFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive, as the central directory and its own header agree on.

    Args:
        start: where its packed bytes begin.
        packed: how many those are.
        size: bytes it says to unpack to.
    """

    name: str
    method: int
    crc: int
    start: int
    packed: int
    size: int


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file whose structure is sound; its content is not looked at yet."""

    entries: dict[str, Entry]
    _data: memoryview

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """The content of an entry, piece by piece, never more than the entry says.

        Raises:
            PackageError: UNSAFE when it would unpack to more, MODIFIED when it is not what the entry says.
        """
        pieces = self._inflate(entry) if entry.method == DEFLATED else self._stored(entry)
        size = crc = 0
        for piece in pieces:
            size += len(piece)
            if size > entry.size:
                raise PackageError(
                    State.UNSAFE, f"{entry.name!r} unpacks to more than the {entry.size} bytes that it declares: a bomb"
                )
            crc = zlib.crc32(piece, crc)
            yield piece
        if size != entry.size or crc != entry.crc:
            raise _spoilt(entry)

    def content(self, name: str, limit: int) -> bytes:
        """All of a small entry; raises PackageError as chunks() does, and for one of more than `limit` bytes."""
        entry = self.entries[name]
        if entry.size > limit:
            raise PackageError(State.UNSAFE, f"{name} has {entry.size} bytes, at most {limit} are allowed")
        return b"".join(self.chunks(entry))

    def _stored(self, entry: Entry) -> Iterator[bytes]:
        end = entry.start + entry.packed
        for position in range(entry.start, end, _STEP):
            yield bytes(self._data[position : min(position + _STEP, end)])

    def _inflate(self, entry: Entry) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for packed in self._stored(entry):
                while packed and not unpacker.eof:
                    yield unpacker.decompress(packed, _STEP)
                    packed = unpacker.unconsumed_tail
                if unpacker.unused_data or (unpacker.eof and packed):
                    raise _spoilt(entry)
            # What is still inside comes out in bounded pieces as well.
            while not unpacker.eof and (piece := unpacker.decompress(unpacker.unconsumed_tail, _STEP)):
                yield piece
        except zlib.error:
            raise _spoilt(entry) from None
        if not unpacker.eof:
            raise _spoilt(entry)


def open_archive(data: bytes | memoryview, bounds: Bounds = BOUNDS) -> Archive:
    """Reads the structure of a zip file.

    Raises:
        PackageError: TRUNCATED, UNSAFE or MALFORMED, with the reason.
    """
    view = memoryview(data)
    if len(view) > bounds.package:
        raise PackageError(State.UNSAFE, f"the file has {len(view)} bytes, at most {bounds.package} are allowed")
    number, place = _end(view)
    if number > bounds.files:
        raise PackageError(State.UNSAFE, f"it holds {number} files, at most {bounds.files} are allowed")
    entries: dict[str, Entry] = {}
    position, following = place, 0
    for _ in range(number):
        entry, position, following = _entry(view, position, following, place)
        if entry.name in entries:
            raise PackageError(State.UNSAFE, f"the file name {entry.name!r} is there twice")
        entries[entry.name] = entry
    if following != place or position != len(view) - _END.size:
        raise _malformed("there is something between its files that belongs to none of them")
    _check_sizes(entries, bounds)
    return Archive(entries, view)


def _end(view: memoryview) -> tuple[int, int]:
    """How many entries there are, and where the central directory is."""
    if len(view) < _END.size or view[-_END.size : -_END.size + 4] != END_MAGIC:
        raise _without_end(view)
    _, disk, first_disk, here, number, size, place, comment = _END.unpack_from(view, len(view) - _END.size)
    if disk or first_disk or here != number or comment or place == _ZIP64 or size == _ZIP64:
        raise _malformed("it is a zip file of several parts, with a comment, or of more than 4 GiB")
    missing = place + size - (len(view) - _END.size)
    if missing > 0:
        raise PackageError(State.TRUNCATED, f"{missing} bytes are missing in the middle: copy it again")
    if missing < 0:
        raise _malformed("there is something before its files or behind its directory")
    return number, place


def _without_end(view: memoryview) -> PackageError:
    if not len(view):
        return PackageError(State.TRUNCATED, "the file is empty: it is not written yet, or was cut off; copy it again")
    begins = bytes(view[:4])
    last = bytes(view[-(_COMMENT_BYTES + _END.size) :])
    if begins == LOCAL_MAGIC and -1 < last.rfind(END_MAGIC) < len(last) - _END.size:
        return _malformed("there is something behind its end: build it with 'broker package build'")
    if begins == LOCAL_MAGIC[: len(begins)]:
        return PackageError(
            State.TRUNCATED,
            f"its end is missing after {len(view)} bytes: it is still being written, or was cut off; copy it again",
        )
    return _malformed("it is not a package: it does not begin like a zip file")


def _entry(view: memoryview, position: int, start: int, end: int) -> tuple[Entry, int, int]:
    """The entry whose directory record is at `position` and whose own header must be at `start`.

    Returns:
        The entry, and where the next record and the next header must be.
    """
    if position + _CENTRAL.size > len(view) - _END.size or view[position : position + 4] != CENTRAL_MAGIC:
        raise _malformed("its directory is damaged")
    record = _CENTRAL.unpack_from(view, position)
    _, made_by, _, flags, method, _, _, crc, packed, size, name_size, extra, comment, disk, _, mode, place = record
    position += _CENTRAL.size
    raw = bytes(view[position : position + name_size])
    name = _name(raw, flags)
    _check_kind(name, flags, method, disk, made_by >> 8, mode >> 16)
    if place != start:
        problem = "overlaps the one before" if place < start else "does not follow the one before"
        raise PackageError(State.UNSAFE, f"the file {name!r} {problem}")
    body = _check_header(view, start, end, (raw, name), (flags, method, crc, packed, size))
    if method == STORED and packed != size:
        raise _malformed(f"the file {name!r} says two different sizes")
    return Entry(name, method, crc, body, packed, size), position + name_size + extra + comment, body + packed


def _check_header(
    view: memoryview, start: int, end: int, names: tuple[bytes, str], facts: tuple[int, int, int, int, int]
) -> int:
    """Checks that the header before a file's data says what the directory says; returns where the data begins."""
    raw, name = names
    if start + _LOCAL.size > end or view[start : start + 4] != LOCAL_MAGIC:
        raise _malformed(f"the header of {name!r} is damaged")
    _, _, flags, method, _, _, crc, packed, size, name_size, extra = _LOCAL.unpack_from(view, start)
    body: int = start + _LOCAL.size + name_size + extra
    if (flags, method, crc, packed, size) != facts or view[start + _LOCAL.size :][:name_size] != raw:
        raise _malformed(f"the header of {name!r} and the directory say different things")
    if body + packed > end:
        raise PackageError(State.UNSAFE, f"the file {name!r} overlaps the directory")
    return body


def _name(raw: bytes, flags: int) -> str:
    try:
        # Without the flag names are in some code page; in ASCII all of those agree.
        return raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise PackageError(State.UNSAFE, f"the file name {raw[:120]!r} is not UTF-8 text marked as such") from None


def _check_kind(name: str, flags: int, method: int, disk: int, system: int, mode: int) -> None:
    kind = stat.S_IFMT(mode) if system == _UNIX else 0
    if kind == stat.S_IFLNK:
        raise PackageError(State.UNSAFE, f"{name!r} is a symbolic link: a package holds plain files only")
    if kind == stat.S_IFDIR or name.endswith("/"):
        raise _malformed(f"{name!r} is a folder: build it with 'broker package build', which packs files only")
    if kind not in (0, stat.S_IFREG):
        raise PackageError(State.UNSAFE, f"{name!r} is a device, pipe or socket: a package holds plain files only")
    if flags & ~_HARMLESS or method not in (STORED, DEFLATED) or disk:
        raise _malformed(f"{name!r} is packed in a way that is not used here: build it with 'broker package build'")


def _check_sizes(entries: dict[str, Entry], bounds: Bounds) -> None:
    """What is declared must be within bounds; chunks() then holds the real bytes to what is declared."""
    for entry in entries.values():
        if entry.size > bounds.file:
            raise PackageError(
                State.UNSAFE, f"{entry.name!r} unpacks to {entry.size} bytes, at most {bounds.file} are allowed"
            )
        if entry.size > bounds.slack + bounds.ratio * entry.packed:
            raise PackageError(
                State.UNSAFE,
                f"{entry.name!r} unpacks {entry.packed} bytes to {entry.size}, more than {bounds.ratio} to one: a bomb",
            )
    total = sum(entry.size for entry in entries.values())
    if total > bounds.unpacked:
        raise PackageError(State.UNSAFE, f"it unpacks to {total} bytes, at most {bounds.unpacked} are allowed: a bomb")


def _malformed(text: str) -> PackageError:
    return PackageError(State.MALFORMED, text)


def _spoilt(entry: Entry) -> PackageError:
    return PackageError(State.MODIFIED, f"the content of {entry.name!r} is not what the package says of it")
