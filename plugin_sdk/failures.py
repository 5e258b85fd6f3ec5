"""What a handler that failed answers its caller."""

from __future__ import annotations

from typing import Any, TypeGuard

import msgspec

from plugin_sdk.calls import RequestFailed
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode
from plugin_sdk.wire.errors import BusError, ConnectionLost
from plugin_sdk.wire.limits import FRAME_TARGET

LONGEST_TEXT = 4000  # characters of an error's text


def is_answer(error: BaseException) -> TypeGuard[BusError]:
    """Whether a handler raised this as its answer: nothing has gone wrong then, and nobody needs a traceback."""
    return isinstance(error, BusError) and not isinstance(error, RequestFailed | ConnectionLost)


def verdict(error: BaseException) -> tuple[str, str, Any]:
    """Code, text and details that answer the caller.

    A handler answers with a code of its own by raising BusError or CallError. What it met while it called others is
    not the answer: `unavailable` would say that this very service had not run.
    """
    if is_answer(error):
        return error.code, error.text, getattr(error, "details", None)
    return "failed", f"{type(error).__name__}: {error}", None


def error_packet(number: int, code: str, text: str, details: Any) -> p.Error:
    """An ERROR that the broker takes: one element out of bounds would cost its whole frame."""
    for packet in (p.Error(number, code, text[:LONGEST_TEXT], details), p.Error(number, code, text[:LONGEST_TEXT])):
        try:
            encoded = encode(packet)
            msgspec.msgpack.decode(encoded, type=p.Error)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError):
            continue
        if len(encoded) <= FRAME_TARGET:
            return packet
    return p.Error(number, "failed", f"{code}: {text}"[:LONGEST_TEXT])
