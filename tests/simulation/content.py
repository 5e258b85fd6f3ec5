"""What the simulated events and requests carry, so that each can be told from every other."""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import Raw

from plugin_sdk.wire.codec import decode_payload

Key = tuple[str, int]  # who published it, and the how manyth of this publisher it is

_decode = msgspec.msgpack.Decoder(tuple[str, int, bytes]).decode


def event(key: Key, size: int) -> tuple[str, int, bytes]:
    """The data of an event with so many bytes of ballast."""
    return (*key, b"." * size)


def key_of(payload: Raw | bytes) -> Key:
    """Which event this is the payload of."""
    return _key(bytes(payload))


@lru_cache(maxsize=512)
def _key(payload: bytes) -> Key:
    return _decode(decode_payload(payload)[1])[:2]
