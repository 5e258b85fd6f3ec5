"""Data of this process on its way into packets: refused here, where its sender is told, if it cannot travel."""

from __future__ import annotations

from typing import Any

import msgspec

from plugin_sdk.wire.codec import BARE_HEADS, encode_payload
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import DEFAULT_LIMITS

_encode = msgspec.msgpack.Encoder().encode


def pack(data: Any, headers: dict[str, str] | None, what: str, limit: int) -> bytes:
    if headers:
        _check_headers(headers, what)
    try:
        body = _encode(data)
        size = len(body)
        # The first is what the second does with most of them, without a call.
        payload = BARE_HEADS[size] + body if size < 256 and not headers else encode_payload(body, headers)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise BusError("bad_request", f"the data for {what!r} cannot be encoded: {error}") from None
    if len(payload) > limit:
        raise BusError("too_large", f"the data for {what!r} has {len(payload)} bytes, the broker takes {limit}")
    return payload


def _check_headers(headers: dict[str, str], what: str) -> None:
    """Nobody looks at them before the receiver, who could not tell whose fault it is."""
    for name, value in headers.items():
        if type(name) is not str or type(value) is not str:
            raise BusError("bad_request", f"header {name!r:.60} of {what!r} is {value!r:.60}: use text for both")


def call_options(wait_ready: float, *, to: int | None = None, stream: bool = False) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if wait_ready:
        options["wait_ready_ms"] = milliseconds(wait_ready, "wait_ready")
    if to is not None:
        options["to"] = to
    if stream:
        options["stream"] = True
    return options


def milliseconds(secs: float, what: str) -> int:
    if not 0 <= secs * 1000 <= DEFAULT_LIMITS.timeout_ms:
        raise ValueError(f"{what} is {secs} s: use 0 to {DEFAULT_LIMITS.timeout_ms // 1000}")
    return round(secs * 1000)
