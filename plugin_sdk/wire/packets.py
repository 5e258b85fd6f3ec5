"""The packets of protocol version 1: one struct a kind, in the order of their array elements.

`payload` is the msgpack array `[headers, body]` kept as raw bytes: the broker passes it on without looking inside.
Elements after the last known one are ignored on receipt, so that later versions can add some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Raw, Struct

from plugin_sdk.wire.limits import (
    DEFAULT_LIMITS,
    MAX_INFO_ITEMS,
    MAX_INFO_NESTING,
    MAX_NAME_BYTES,
    MAX_PATTERNS,
    MAX_SUBJECT_BYTES,
    MAX_TEXT_BYTES,
    MAX_TOKEN_BYTES,
)


def _plain(nesting: int) -> Any:
    """The type of nil, booleans, numbers, strings, and arrays and string maps of them, nested so deep at most.

    Nesting without a bound would be decoded at one depth of the stack and overflow it where it is encoded again.
    """
    scalar = bool | int | float | str | None
    plain: Any = scalar
    for _ in range(nesting):
        plain = scalar | list[plain] | dict[str, plain]
    return plain


if TYPE_CHECKING:
    Plain = Any
else:
    Plain = _plain(MAX_INFO_NESTING)
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=MAX_NAME_BYTES)]
Subject = Annotated[str, Meta(max_length=MAX_SUBJECT_BYTES)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_BYTES)]
Token = Annotated[str, Meta(max_length=MAX_TOKEN_BYTES)]
Info = Annotated[dict[str, Plain], Meta(max_length=MAX_INFO_ITEMS)]
Versions = Annotated[list[Number], Meta(max_length=16)]
Patterns = Annotated[list[Subject], Meta(max_length=MAX_PATTERNS)]
Services = Annotated[list[Subject], Meta(max_length=DEFAULT_LIMITS.services)]
Permissions = Annotated[dict[Name, Patterns], Meta(max_length=MAX_INFO_ITEMS)]
SubscriptionIds = Annotated[list[Number], Meta(max_length=DEFAULT_LIMITS.subscriptions)]

RETAIN = 1  # flag of PUBLISH: keep as the last value of its subject


class Register(Struct, array_like=True, tag=1, frozen=True):
    """A process asks to be admitted. Its layout never changes, whatever the version."""

    versions: Versions
    role: Name
    name: Name
    version: Name
    instance: Name
    nonce: Name
    token: Token | None = None
    language: Name = ""
    sdk: Name = ""
    services: Services = []
    info: Info = {}


class Registered(Struct, array_like=True, tag=2, frozen=True):
    """The broker admits it: from now on every frame carries `session`. A verb without permissions is free."""

    version: Number
    session: Number
    heartbeat_ms: Number
    credit: Number
    identity: Name
    limits: Info = {}
    permissions: Permissions = {}


class Refused(Struct, array_like=True, tag=3, frozen=True):
    """The broker does not know the sender, or will not admit it. Its layout never changes, whatever the version."""

    code: Name
    text: Text
    retry: bool = False


class Ping(Struct, array_like=True, tag=4, frozen=True):
    """Are you there? `stats` is the sender's own view of itself (see PROTOCOL.md)."""

    number: Number
    stats: Info = {}


class Pong(Struct, array_like=True, tag=5, frozen=True):
    """The answer to PING, with its number."""

    number: Number


class Goodbye(Struct, array_like=True, tag=6, frozen=True):
    """The sender closes the session; nothing follows."""

    code: Name
    text: Text = ""


class Ok(Struct, array_like=True, tag=7, frozen=True):
    """SUBSCRIBE, UNSUBSCRIBE, SERVE or WITHDRAW with this ref took effect."""

    ref: Number


class Subscribe(Struct, array_like=True, tag=10, frozen=True):
    """Send me what matches `pattern`; `ref` becomes the subscription's id."""

    ref: Number
    pattern: Subject
    group: Name | None = None
    options: Info = {}


class Unsubscribe(Struct, array_like=True, tag=11, frozen=True):
    """End a subscription."""

    ref: Number
    subscription: Number


class Publish(Struct, array_like=True, tag=12, gc=False):
    """An event on its way to the broker."""

    flags: Number
    subject: Subject
    payload: Raw


class Event(Struct, array_like=True, tag=13, gc=False):
    """An event on its way to a subscriber, once for all of its subscriptions named here."""

    subscriptions: SubscriptionIds
    subject: Subject
    payload: Raw


class Credit(Struct, array_like=True, tag=14, frozen=True):
    """The receiver may send `amount` more: bytes of events (stream 0) or chunks of that request."""

    stream: Number
    amount: Number


class Serve(Struct, array_like=True, tag=20, frozen=True):
    """This process answers requests to `service`."""

    ref: Number
    service: Subject
    options: Info = {}


class Withdraw(Struct, array_like=True, tag=21, frozen=True):
    """This process takes no new requests to `service`."""

    ref: Number
    service: Subject


class Call(Struct, array_like=True, tag=22, gc=False):
    """A caller's request; `ref` is the caller's."""

    ref: Number
    service: Subject
    payload: Raw
    timeout_ms: Number
    options: Info | None = None


class Request(Struct, array_like=True, tag=23, gc=False):
    """The same on its way to the instance that was chosen; `request` is the broker's number."""

    request: Number
    service: Subject
    payload: Raw
    timeout_ms: Number
    options: Info | None = None


class Reply(Struct, array_like=True, tag=24, gc=False):
    """The last word of a request that went well."""

    ref: Number
    payload: Raw


class Chunk(Struct, array_like=True, tag=25, gc=False):
    """One piece of a streamed reply."""

    ref: Number
    payload: Raw


class Error(Struct, array_like=True, tag=26, gc=False):
    """The last word of a request, or of a packet with a ref, that did not go well. Ref 0: of no request."""

    ref: Number
    code: Name
    text: Text
    details: Plain = None


class Cancel(Struct, array_like=True, tag=27, frozen=True):
    """Nobody waits for this request any more."""

    ref: Number


class Unknown(Struct, frozen=True):
    """Never on the wire: a packet whose kind this side does not know."""

    kind: int


Packet = (
    Register
    | Registered
    | Refused
    | Ping
    | Pong
    | Goodbye
    | Ok
    | Subscribe
    | Unsubscribe
    | Publish
    | Event
    | Credit
    | Serve
    | Withdraw
    | Call
    | Request
    | Reply
    | Chunk
    | Error
    | Cancel
)
