"""Arbitrary packets and msgpack values, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec import Raw, Struct

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode_payload
from plugin_sdk.wire.limits import MAX_INFO_NESTING

numbers = st.integers(0, 2**63 - 1)
session_numbers = st.integers(0, 2**64 - 1)
names = st.text(max_size=64)
texts = st.text(max_size=100)
headers = st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=5)
payloads = st.builds(encode_payload, st.binary(max_size=40), headers).map(Raw)
_scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), texts)


def _nest(levels: int) -> st.SearchStrategy[Any]:
    values = _scalars
    for _ in range(levels):
        lists = st.lists(values, max_size=3)
        values = st.one_of(_scalars, lists, st.dictionaries(names, values, max_size=3))
    return values


plain = _nest(MAX_INFO_NESTING)
infos = st.dictionaries(names, plain, max_size=4)
msgpack_values = st.recursive(
    st.one_of(_scalars, st.binary(max_size=20)),
    lambda values: st.one_of(st.lists(values, max_size=4), st.dictionaries(names, values, max_size=4)),
    max_leaves=12,
)

_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "versions": st.lists(numbers, max_size=16),
    "services": st.lists(texts, max_size=5),
    "subscriptions": st.lists(numbers, max_size=20),
    "payload": payloads,
    "info": infos,
    "limits": infos,
    "permissions": st.dictionaries(names, st.lists(texts, max_size=3), max_size=4),
    "stats": infos,
    "details": plain,
    "retry": st.booleans(),
    "token": st.none() | names,
    "group": st.none() | names,
}
_NUMBERS = (
    *("version", "session", "heartbeat_ms", "credit", "number", "ref"),
    *("subscription", "stream", "amount", "flags", "timeout_ms", "request"),
)


def _field(kind: type[Struct], name: str) -> st.SearchStrategy[Any]:
    if name == "version" and kind is p.Register:
        return names
    if name == "options":
        return infos | st.none() if kind in (p.Call, p.Request) else infos
    return numbers if name in _NUMBERS else _FIELDS.get(name, names)


packets = st.one_of(
    *(st.builds(kind, *(_field(kind, name) for name in kind.__struct_fields__)) for kind in p.Packet.__args__)
)
