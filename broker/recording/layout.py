"""The file format, version 1: one MessagePack object after the other.

The first is a map, the header. Every array is an event: `[time, subject, payload]`, the time in microseconds since
1970, the payload as it went over the wire (the MessagePack array `[headers, body]`) inside of a `bin`, so that what a
broken sender wrote cannot break the file. Every further map is either a note (`{"note": text, "time": …}`) or the end
(`{"end": why, "events": number, …}`), which a recording that was cut off lacks. Readers pass over maps with other keys
and over further elements of an event; a change that they could not pass over gets a new version.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import msgpack

from plugin_sdk.events import Event

FORMAT = "plugmesh-recording"
VERSION = 1

_EVENT_AT = struct.Struct(">BBQ")
_BIN16, _BIN32 = struct.Struct(">BH"), struct.Struct(">BI")
_BIN8_HEADS = tuple(b"\xc4" + bytes((length,)) for length in range(256))
_CACHED_SUBJECTS = 10_000


@dataclass(frozen=True, slots=True)
class Header:
    """What the first object of a file says.

    Args:
        id: of the recording; all its parts have the same.
        part: counts the files of one recording from 1.
        started_us: when the recording began, in microseconds since 1970.
        patterns: what was subscribed to.
        node: the broker that was recorded.
    """

    id: str
    part: int
    started_us: int
    patterns: tuple[str, ...]
    node: str = ""

    def encode(self) -> bytes:
        """The header as the first bytes of a file."""
        return pack({"format": FORMAT, "version": VERSION, **asdict(self)})


def note(text: str, time_us: int) -> bytes:
    """A remark between events, such as that the connection was lost."""
    return pack({"note": text, "time": time_us})


def end(why: str, events: int, facts: dict[str, Any]) -> bytes:
    """The last object of a file: why it ends, how many events it holds, and what else is known by then."""
    return pack({"end": why, "events": events, **facts})


def pack(value: dict[str, Any]) -> bytes:
    """Any map, encoded."""
    return bytes(msgpack.packb(value))


class EventEncoder:
    """Encodes events; what is the same for many of them is encoded once."""

    def __init__(self) -> None:
        self._subjects: dict[str, bytes] = {}

    def encode(self, events: Iterable[Event], time_us: int) -> bytes:
        """All of them as they stand in a file, with one time."""
        head = _EVENT_AT.pack(0x93, 0xCF, time_us)
        subjects = self._subjects
        parts: list[Any] = []
        for event in events:
            payload = event.payload
            size = len(payload)
            subject = subjects.get(event.subject) or self._subject(event.subject)
            parts += (head, subject, _BIN8_HEADS[size] if size < 256 else _bin_head(size), payload)
        return b"".join(parts)

    def _subject(self, subject: str) -> bytes:
        if len(self._subjects) >= _CACHED_SUBJECTS:
            self._subjects.clear()
        packed = self._subjects[subject] = bytes(msgpack.packb(subject))
        return packed


def _bin_head(size: int) -> bytes:
    return _BIN16.pack(0xC5, size) if size < 65_536 else _BIN32.pack(0xC6, size)


def whole(data: bytes, limit: int, most: int = sys.maxsize) -> tuple[int, int]:
    """How many bytes of `data`, at most `limit`, hold whole objects, at most `most`, and how many objects that are."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data) + 1)
    unpacker.feed(data)
    size = count = 0
    while count < most:
        try:
            unpacker.skip()
        except msgpack.OutOfData:
            break
        if unpacker.tell() > limit:
            break
        size, count = unpacker.tell(), count + 1
    return size, count
