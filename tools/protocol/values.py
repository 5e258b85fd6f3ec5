"""How msgpack values are written as JSON, and how long byte strings are written short.

JSON has no bytes, and many of its readers lose integers above 2^53: bytes become `{"$bin": hex}`, such integers
`{"$int": decimal}`. Packed bytes come from the msgpack package, never from the codec that the vectors are to check.
"""

from __future__ import annotations

from typing import Any

import msgpack

SAFE_INTEGER = 2**53 - 1


def pack(value: object) -> bytes:
    """The bytes of a value, with the shortest format for everything."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack(data: bytes) -> Any:
    """The value of some bytes."""
    return msgpack.unpackb(data)


def as_json(value: Any) -> Any:
    """A msgpack value as JSON can hold it."""
    if isinstance(value, bytes):
        return {"$bin": value.hex()}
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if type(value) is int and value > SAFE_INTEGER:
        return {"$int": str(value)}
    return value


class Parts(tuple[tuple[bytes, int], ...]):
    """Bytes as pieces, each with the number of its repetitions: a frame of 8 MiB in one line."""

    __slots__ = ()

    def join(self) -> bytes:
        """All of the bytes."""
        return b"".join(piece * times for piece, times in self)


def in_hex(data: bytes | Parts) -> dict[str, Any]:
    """The field of a vector that gives its bytes."""
    if isinstance(data, Parts):
        return {"parts": [[piece.hex(), times] for piece, times in data]}
    return {"hex": data.hex()}
