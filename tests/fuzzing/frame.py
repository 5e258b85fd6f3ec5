"""Any bytes are a frame of packets, or a refusal with one of three codes: never anything else.

What was understood says the same when it is encoded and decoded again. What a second implementation of MessagePack
cannot read as one whole array is refused. The payload of a packet is headers and a body, or a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgpack
from msgspec import Raw

from plugin_sdk.wire.codec import decode_frame, decode_payload, encode_frame, encode_payload
from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.packets import Unknown
from tests.fuzzing.vectors import frames

T = TypeVar("T")
_CODES = ("bad_frame", "limit", "too_large")


def check(data: bytes) -> None:
    """Raise AssertionError, or anything else, when the bytes break the invariant."""
    frame = _decoded(decode_frame, data, _CODES)
    if frame is None:
        return
    session, packets = frame
    assert _is_whole_array(data), "it was taken, though it is not one whole array"
    known = [packet for packet in packets if type(packet) is not Unknown]
    again = encode_frame(session, known)
    # As bytes: not-a-number is not equal to itself.
    assert encode_frame(*decode_frame(again)) == again
    for packet in known:
        _check_payload(packet)


def seeds() -> Iterator[bytes]:
    """What to begin with."""
    yield from frames("good", "bad")


def _is_whole_array(data: bytes) -> bool:
    reader = msgpack.Unpacker(max_buffer_size=len(data) + 1)
    reader.feed(data)
    try:
        for _ in range(reader.read_array_header()):
            reader.skip()
        return bool(reader.tell() == len(data))
    except (msgpack.exceptions.UnpackException, ValueError):
        return False


def _check_payload(packet: Any) -> None:
    payload = getattr(packet, "payload", None)
    if not isinstance(payload, Raw):
        return
    content = _decoded(decode_payload, payload, ("bad_packet",))
    if content is not None:
        headers, body = content
        assert decode_payload(encode_payload(body, headers)) == content


def _decoded(decode: Callable[[Any], T], data: bytes | Raw, codes: tuple[str, ...]) -> T | None:
    """What some bytes are, or None when they are refused in the right way."""
    try:
        return decode(data)
    except RemoteProtocolError as error:
        if error.code in codes and error.text:
            return None
        raise
