"""Recordings made for tests."""

from collections.abc import Sequence
from pathlib import Path

from broker.recording.layout import EventEncoder, Header
from broker.recording.reader import Reader, Record
from broker.recording.writer import Writer
from plugin_sdk.events import Event
from plugin_sdk.wire.codec import encode, encode_payload

HEADER = Header("feed", 1, 1_000_000, (">",), "here")


def event(subject: str, data: object, headers: dict[str, str] | None = None) -> Event:
    return Event(subject, encode_payload(encode(data), headers))


def encoded(events: Sequence[Event], time_us: int = 5_000_000) -> bytes:
    return EventEncoder().encode(events, time_us)


def make(path: Path, numbers: Sequence[int], header: Header = HEADER) -> Path:
    """A recording of events `n.NUMBER`, one a second, that has its end."""
    writer = Writer(path, header)
    for number in numbers:
        writer.write(encoded([event(f"n.{number}", number)], number * 1_000_000), 1)
    writer.close("done", {})
    return path


def read(path: Path) -> tuple[list[Record], Reader]:
    reader = Reader(path)
    return list(reader), reader
