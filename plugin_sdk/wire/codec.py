"""Frames to packets and back.

A frame is the msgpack array `[session, packet, packet, …]`. A whole frame is decoded by one call into msgspec, which
also checks types, lengths and ranges; payloads stay raw bytes that refer to the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.limits import DEFAULT_LIMITS, Limits
from plugin_sdk.wire.packets import Packet, Unknown

# What msgspec raises for bytes that are not msgpack, or not of the type that was asked for.
UNREADABLE = msgspec.MsgspecError, RecursionError, UnicodeDecodeError

_encoder = msgspec.msgpack.Encoder()
_frames: msgspec.msgpack.Decoder[list[Any]] = msgspec.msgpack.Decoder(list[int | Packet])
_raw_frames = msgspec.msgpack.Decoder(list[Raw])
_packet: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Packet)
_array: msgspec.msgpack.Decoder[list[Any]] = msgspec.msgpack.Decoder(list[Any])
payload_decoder = msgspec.msgpack.Decoder(tuple[dict[str, str], bytes])

_KINDS = frozenset(kind.__struct_config__.tag for kind in Packet.__args__)
_NO_HEADERS = b"\x92\x80"
# By the length of the body, what stands before it in a payload without headers.
BARE_HEADS = tuple(_NO_HEADERS + b"\xc4" + bytes((length,)) for length in range(256))

encode = _encoder.encode


def decode_frame(frame: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, list[Any]]:
    """Split a frame into its session number and its packets.

    Args:
        frame: what arrived, untrusted.
        limits: bounds on bytes and packets.

    Raises:
        RemoteProtocolError: code `too_large`, `limit` or `bad_frame`, never anything else, for any bytes.
    """
    _check_size(frame, limits)
    try:
        packets = _frames.decode(frame)
    except UNREADABLE:
        packets = _decode_one_by_one(frame)
    if not packets or type(packets[0]) is not int or packets[0] < 0:
        raise RemoteProtocolError("bad_frame", "a frame begins with the session number, 0 before registration")
    session = packets[0]
    del packets[0]
    # The union also admits bare integers where a packet belongs; one C-speed pass finds them.
    if int in map(type, packets):
        raise RemoteProtocolError("bad_frame", "a packet is an array that begins with its kind, not a number")
    return session, packets


def encode_frame(session: int, packets: Sequence[Packet]) -> bytes:
    """One frame of whole packets: for the few places where speed does not matter."""
    return join_frame(encode(session), [encode(packet) for packet in packets], len(packets))


def join_frame(session: bytes, parts: Sequence[bytes | Raw], count: int) -> bytes:
    """A frame of `count` packets from encoded pieces, of which a packet may have several."""
    return b"".join((array_head(count + 1), session, *parts))


def array_head(length: int) -> bytes:
    """The msgpack head of an array of `length` elements."""
    if length < 16:
        return bytes((0x90 | length,))
    if length < 65_536:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def encode_payload(body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """The msgpack array `[headers, body]` of a PUBLISH, CALL or REPLY."""
    if headers:
        return _encoder.encode((headers, body))
    size = len(body)
    return BARE_HEADS[size] + body if size < 256 else _NO_HEADERS + _encoder.encode(body)


def decode_payload(payload: Raw | bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of a payload.

    Raises:
        RemoteProtocolError: code `bad_packet` when it is not `[map of str to str, bin]`.
    """
    try:
        return payload_decoder.decode(payload)
    except UNREADABLE as error:
        text = f"a payload is [map of strings, bin]: {error}"
        raise RemoteProtocolError("bad_packet", text) from None


def publish_head(subject: str, flags: int = 0) -> bytes:
    """Everything of a PUBLISH before its payload."""
    return b"\x94\x0c" + _encoder.encode(flags) + _encoder.encode(subject)


def event_head(subscriptions: Sequence[int], subject: str) -> bytes:
    """Everything of an EVENT before its payload."""
    return b"\x94\x0d" + _encoder.encode(subscriptions) + _encoder.encode(subject)


def _check_size(frame: bytes, limits: Limits) -> None:
    if len(frame) > limits.frame_bytes:
        text = f"frame of {len(frame)} bytes, the limit is {limits.frame_bytes}"
        raise RemoteProtocolError("too_large", text)
    # The count is read before anything is decoded: 8 MiB of three-byte packets would become gigabytes of objects.
    head = frame[:5]
    if len(head) > 2 and head[0] == 0xDC:
        count = int.from_bytes(head[1:3], "big")
    elif len(head) > 4 and head[0] == 0xDD:
        count = int.from_bytes(head[1:5], "big")
    else:
        return
    if count > limits.packets_per_frame + 1:
        text = f"{count - 1} packets in a frame, the limit is {limits.packets_per_frame}"
        raise RemoteProtocolError("limit", text)


def _decode_one_by_one(frame: bytes) -> list[Any]:
    """The slow path: tell an unknown kind, which is tolerated, from a malformed packet, which is not."""
    try:
        elements = _raw_frames.decode(frame)
        if not elements:
            return []
        return [msgspec.msgpack.decode(elements[0]), *(_decode_packet(raw) for raw in elements[1:])]
    except UNREADABLE as error:
        raise RemoteProtocolError("bad_frame", f"not a msgpack array of packets: {error}") from None


def _decode_packet(raw: Raw) -> Any:
    try:
        return _packet.decode(raw)
    except msgspec.ValidationError as error:
        elements = _array.decode(raw)
        kind = elements[0] if elements else None
        if type(kind) is int and kind >= 0 and kind not in _KINDS:
            return Unknown(kind)
        raise RemoteProtocolError("bad_frame", f"packet of kind {kind!r:.60}: {error}") from None
