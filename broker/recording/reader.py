"""Reads the files of recordings as streams: nothing is held in memory but the event in hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgpack

from broker.recording.errors import RecordingError
from broker.recording.layout import FORMAT, VERSION, Header
from plugin_sdk.wire.codec import decode_payload

# The largest frame that a broker can be set to take, and the few bytes around it: what claims to be larger is damage.
MAX_OBJECT_BYTES = (256 << 20) + 4096
_READ_BYTES = 256 * 1024


class Record(NamedTuple):
    """One event: when it was recorded in microseconds since 1970, and what it was."""

    time_us: int
    subject: str
    payload: bytes

    def content(self) -> tuple[dict[str, str], bytes]:
        """Headers and body; raises RemoteProtocolError when its publisher broke the format."""
        return decode_payload(self.payload)


class Reader:
    """One file. Iterate it once; `end`, `notes` and `damage` are complete afterwards.

    Args:
        path: a file that a Writer made.

    Raises:
        RecordingError: it cannot be read, is no recording, or is of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self.notes: list[str] = []
        self.end: dict[str, Any] | None = None
        self.damage = ""
        try:
            self.size = path.stat().st_size
        except OSError as error:
            raise RecordingError(f"cannot read {path}: {error.strerror}") from None
        # Opened again to be iterated: a recording may have more parts than a process may have files open.
        with self._open():
            self.header = self._read_header()

    def __iter__(self) -> Iterator[Record]:
        """The events in order; what cannot be read at the end is told in `damage`."""
        with self._open():
            self._next()
            while (item := self._next()) is not None:
                if type(item) is list:
                    yield Record._make(item[:3])
                elif "note" in item:
                    self.notes.append(str(item["note"]))
                elif "end" in item:
                    self.end = item

    def _open(self) -> BinaryIO:
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise RecordingError(f"cannot read {self.path}: {error.strerror}") from None
        self._unpacker = msgpack.Unpacker(
            file, read_size=_READ_BYTES, max_buffer_size=MAX_OBJECT_BYTES, strict_map_key=False
        )
        return file

    def _next(self) -> Any:
        """The next array or map, or None at the end of what can be read."""
        try:
            item = self._unpacker.unpack()
        except msgpack.OutOfData:
            self._note_end()
            return None
        except OSError as error:
            self.damage = f"{self.path}: cannot be read from byte {self.position} on: {error.strerror}"
            return None
        except (ValueError, TypeError, RecursionError) as error:
            # msgpack's own errors are ValueErrors; a key that cannot be hashed is a TypeError.
            self._note_damage(f"{type(error).__name__} {error}".strip())
            return None
        if not (_is_event(item) or type(item) is dict):
            self._note_damage("there is neither an event nor a map")
            return None
        self.position = self._unpacker.tell()
        return item

    def _note_end(self) -> None:
        rest = self.size - self.position
        if rest > 0:
            self.damage = f"{self.path}: the last {rest} bytes are not a whole event: the recording was cut off there"
        elif self.end is None:
            self.damage = f"{self.path}: the recording has no end: it was cut off, or goes on"

    def _note_damage(self, why: str) -> None:
        rest = self.size - self.position
        self.damage = f"{self.path}: damaged at byte {self.position}, so that {rest} bytes cannot be read: {why}"

    def _read_header(self) -> Header:
        said = self._next()
        if type(said) is not dict or said.get("format") != FORMAT:
            raise RecordingError(f"{self.path} is not a recording of plugmesh")
        if said.get("version") != VERSION:
            version = said.get("version")
            raise RecordingError(f"{self.path} has version {version!r} of the format, this broker reads {VERSION}")
        try:
            return Header(
                id=str(said["id"]),
                part=int(said["part"]),
                started_us=int(said["started_us"]),
                patterns=tuple(map(str, said["patterns"])),
                node=str(said.get("node", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RecordingError(f"the header of {self.path} is damaged: {error!r}") from None


def _is_event(item: Any) -> bool:
    return (
        type(item) is list
        and len(item) >= 3
        and type(item[0]) is int
        and type(item[1]) is str
        and type(item[2]) is bytes
    )
