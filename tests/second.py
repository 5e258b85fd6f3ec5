"""The `msgpack` package: a second, independent implementation that the codec is checked against."""

from __future__ import annotations

from typing import Any

import msgpack
from msgspec import Raw


def pack(value: object) -> bytes:
    """Bytes of a value, by the second implementation."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack(data: bytes | Raw) -> Any:
    """The value of bytes, by the second implementation."""
    return msgpack.unpackb(data)


def array_head(length: int) -> bytes:
    """The head of an array of `length` elements, by the second implementation."""
    head: bytes = msgpack.Packer().pack_array_header(length)
    return head


def as_message(packet: Any) -> list[Any]:
    """A packet as the array that it is on the wire, made without the codec."""
    values = [getattr(packet, name) for name in packet.__struct_fields__]
    return [packet.__struct_config__.tag, *(unpack(each) if isinstance(each, Raw) else each for each in values)]
