"""The test vectors as one JSON document: plugin_sdk/wire/vectors.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from msgspec import NODEFAULT
from msgspec.structs import FieldInfo, fields

from plugin_sdk.wire.errors import REGISTRY
from plugin_sdk.wire.packets import Packet
from tools.protocol import dialogue, frames, names, refused
from tools.protocol.values import Parts, as_json, in_hex, unpack

ABOUT = (
    "Test vectors of plugmesh protocol version 1, see docs/PROTOCOL.md; made by tools/vectors."
    " `hex` is the bytes; `parts` are pieces with repetitions, to be joined. In values {'$bin': hex} stands for bytes"
    " and {'$int': decimal} for an integer above 2^53. A good frame decodes to `frame` (or to `count` packets);"
    " elements that it leaves out have the defaults of `packets`; a kind that is not in `packets` is unknown."
    " A bad frame is refused as a whole with `code`."
)


def document() -> dict[str, Any]:
    """All vectors."""
    return {
        "about": ABOUT,
        "protocol": 1,
        "packets": [_layout(kind) for kind in Packet.__args__],
        "errors": {row.code: {"retry": row.retry} for row in REGISTRY.values()},
        "frames": {
            "good": [_vector(each) for each in frames.good_frames()],
            "bad": [_vector(each) for each in refused.bad_frames()],
        },
        "payloads": {
            "good": [
                {"name": name, "hex": data.hex(), "headers": headers, "body": body.hex()}
                for name, data, headers, body in names.GOOD_PAYLOADS
            ],
            "bad": [{"name": name, "hex": data.hex(), "code": "bad_packet"} for name, data in names.BAD_PAYLOADS],
        },
        "subjects": {"good": names.GOOD_SUBJECTS, "bad": names.BAD_SUBJECTS},
        "patterns": {"good": names.GOOD_PATTERNS, "bad": names.BAD_PATTERNS},
        "names": {"good": names.GOOD_NAMES, "bad": names.BAD_NAMES},
        "matches": names.matches(),
        "dialogue": [
            {"from": line.sender, "to": line.receiver, "hex": line.frame.hex(), "frame": as_json(unpack(line.frame))}
            for line in dialogue.play()
            if line.frame
        ],
    }


def text() -> str:
    """The file: one vector a line, so that a change shows as the lines that it changed."""
    return "".join(_lines(document())) + "\n"


def _lines(value: dict[str, Any], depth: int = 0) -> Iterator[str]:
    yield "{\n"
    margin = "  " * (depth + 1)
    for number, (key, inner) in enumerate(value.items()):
        yield (",\n" if number else "") + f"{margin}{_compact(key)}: "
        if isinstance(inner, dict) and any(isinstance(each, list) for each in inner.values()):
            yield from _lines(inner, depth + 1)
        elif isinstance(inner, list | dict):
            yield from _spread(inner, margin)
        else:
            yield _compact(inner)
    yield "\n" + "  " * depth + "}"


def _spread(value: list[Any] | dict[str, Any], margin: str) -> Iterator[str]:
    """One entry a line."""
    if isinstance(value, list):
        left, right, entries = "[", "]", [_compact(each) for each in value]
    else:
        left, right, entries = "{", "}", [f"{_compact(key)}: {_compact(inner)}" for key, inner in value.items()]
    yield left + "\n" + ",\n".join(f"{margin}  {each}" for each in entries) + f"\n{margin}{right}"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)


def _layout(kind: Any) -> dict[str, Any]:
    """Kind, name and elements of a packet, with the defaults of those that may be left out."""
    elements = fields(kind)
    return {
        "kind": kind.__struct_config__.tag,
        "name": kind.__name__.upper(),
        "elements": [field.name for field in elements],
        "defaults": {field.name: _default(field) for field in elements if not field.required},
    }


def _default(field: FieldInfo) -> Any:
    return field.default if field.default is not NODEFAULT else field.default_factory()


def _vector(entry: dict[str, Any]) -> dict[str, Any]:
    data: bytes | Parts = entry["bytes"]
    rest = {key: value for key, value in entry.items() if key not in ("name", "bytes")}
    return {"name": entry["name"], **in_hex(data), **{key: as_json(value) for key, value in rest.items()}}
