"""What a subscriber gets: an event, decoded only as far as it is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from plugin_sdk.wire.codec import UNREADABLE, decode_payload, payload_decoder
from plugin_sdk.wire.conventions import TRACEPARENT, read_traceparent
from plugin_sdk.wire.errors import BusError

Run = Callable[["Event"], Awaitable[Any]]

_decode = msgspec.msgpack.Decoder().decode
_MISSING: Any = object()


# Thousands of them wait in a flood. The garbage collector would count each, and walk through all that the process has
# imported again and again.
class Event(Struct, eq=False, gc=False):
    """One event: `subject`, `headers`, `body` (bytes as sent) and `data` (the body decoded).

    `cost` is the credit that goes back to the broker once it is handled, valid in the session numbered `epoch` only.
    """

    subject: str
    _payload: Raw | bytes
    cost: int = 0
    epoch: int = 0
    _content: tuple[dict[str, str], bytes] | None = None
    _data: Any = _MISSING

    def content(self) -> tuple[dict[str, str], bytes]:
        """Headers and body as sent, decoded once; raises RemoteProtocolError when the sender broke the format."""
        if self._content is None:
            self._content = decode_payload(self._payload)
        return self._content

    @property
    def headers(self) -> dict[str, str]:
        """Headers as sent; raises RemoteProtocolError when the sender broke the format."""
        return self.content()[0]

    @property
    def body(self) -> bytes:
        """The body as bytes; what they mean is in the header `content-type`, by default msgpack."""
        return self.content()[1]

    @property
    def payload(self) -> Raw | bytes:
        """Headers and body as they came over the wire, for whoever passes them on without looking."""
        return self._payload

    @property
    def data(self) -> Any:
        """The body decoded from msgpack.

        Raises:
            BusError: code `bad_request`, when the body is not msgpack.
        """
        if self._data is _MISSING:
            self._data = decode_body(self.content()[1], self.subject)
        return self._data

    @property
    def id(self) -> str:
        """The header `message-id`, or an empty text."""
        return self.headers.get("message-id", "")

    @property
    def trace_ids(self) -> tuple[str, str] | None:
        """Trace id and span id of what led to it, by the header `traceparent`; None without a valid one."""
        parent = read_traceparent(self.headers.get(TRACEPARENT))
        return None if parent is None else (parent.trace_id, parent.span_id)

    def __repr__(self) -> str:
        return f"Event({self.subject!r}, {len(self.body)} bytes)"


def decode_body(body: bytes, what: str) -> Any:
    """Decode msgpack; raises BusError `bad_request` naming `what` when it is none. An empty body is None."""
    if not body:
        return None
    try:
        return _decode(body)
    except UNREADABLE as error:
        raise BusError("bad_request", f"the body of {what} is not msgpack: {error}") from None


class Tracing(Protocol):
    """What is known of the broker's tracing."""

    traces: bool


def bare_aside(bare: Run, other: Run, broker: Tracing) -> Run:
    """A handler that hands events without headers on to `bare` while the broker traces, and all others to `other`.

    An event whose sender broke the format goes to `other`, too.
    """
    decode = payload_decoder.decode

    def run(event: Event) -> Awaitable[Any]:
        try:
            # As content() does, written out: this stands before every event of a subscription that leaves traces.
            content = event._content = decode(event._payload)
        except UNREADABLE:
            return other(event)
        return other(event) if content[0] or not broker.traces else bare(event)

    return run
