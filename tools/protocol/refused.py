"""Frames that every implementation must refuse, each with the code of the refusal."""

from __future__ import annotations

from typing import Any

from tools.protocol.frames import EMPTY, FULL, REQUIRED, S
from tools.protocol.values import Parts, pack

PING = b"\x92\x04\x01"
MESSAGES: list[tuple[str, bytes]] = [
    ("an empty message", b""),
    ("text", b"GET / HTTP/1.1\r\n"),
    ("the byte that msgpack never uses", b"\xc1"),
    ("nil instead of an array", b"\xc0"),
    ("a map instead of an array", pack({"session": 1})),
    ("a number instead of an array", pack(1)),
    ("an empty array", b"\x90"),
    ("bytes after the frame", pack([S, [5, 1]]) + b"\x00"),
    ("two frames in one message", pack([S, [5, 1]]) * 2),
    ("a frame that ends in the session number", b"\x92\xcf\x40\x00"),
    ("a frame that ends in a packet", pack([S, FULL["CALL"]])[:-7]),
    ("a frame that promises more packets", b"\x93\x01" + PING),
    ("an array that promises 4 billion elements", b"\x92\x01\x93\x0d\xdd\xff\xff\xff\xff"),
    ("a body that promises 4 billion bytes", b"\x92\x01\x94\x0c\x00\xa1a\x92\x80\xc6\xff\xff\xff\xff"),
    ("a string that is not UTF-8", b"\x92\x01\x92\x06\xa2\xc3\x28"),
    ("a surrogate in a string", b"\x92\x01\x92\x06\xa3\xed\xa0\x80"),
]
SESSIONS: list[tuple[str, Any]] = [
    ("nil", None),
    ("a negative number", -1),
    ("a float", 1.0),
    ("a string", "1"),
    ("bytes", b"\x01"),
    ("a boolean", True),
    ("an array", [1]),
]
PACKETS: list[tuple[str, Any]] = [
    ("a bare number", 5),
    ("nil", None),
    ("a string", "PING"),
    ("a map", {"kind": 5}),
    ("an empty array", []),
    ("a negative kind", [-1, 1]),
    ("a float as kind", [5.0, 1]),
    ("a string as kind", ["5", 1]),
    ("nil as kind", [None, 1]),
    ("a boolean as kind", [True, 1]),
    ("a negative number", [5, -1]),
    ("a number above the largest", [5, 2**63]),
    ("a float where a number belongs", [5, 1.0]),
    ("nil where a map belongs", [4, 1, None]),
    ("a subject of 257 bytes", [12, 0, "a" * 257, EMPTY]),
    ("a name of 65 characters", [6, "c" * 65]),
    ("a token of 513 characters", [1, [1], "client", "probe", "", "", "n", "t" * 513]),
    ("17 protocol versions", [1, list(range(1, 18)), "client", "probe", "", "", "n"]),
    ("1025 services", [1, [1], "plugin", "probe", "", "", "n", None, "", "", ["s"] * 1025]),
    ("65 entries in a map", [4, 1, {f"k{number}": number for number in range(65)}]),
    ("values five levels deep in a map", [4, 1, {"a": [{"b": [{"c": [1]}]}]}]),
    ("bytes in a map", [4, 1, {"a": b"x"}]),
    ("a key that is not a string", [4, 1, {1: "a"}]),
    ("details five levels deep", [26, 1, "failed", "", [[[[[1]]]]]]),
    ("details with bytes", [26, 1, "failed", "", b"x"]),
]
_EXTENSION = b"\x92\x01\x93\x04\x01\x81\xa1a\xd6\xff\x00\x00\x00\x00"
_BOTTOMLESS = ((b"\x91", 100_000), (b"\x01", 1))
LARGE: list[tuple[str, str, Parts]] = [
    (
        "a frame of 8 MiB and one byte",
        "too_large",
        Parts(((b"\x92\x01\x93\x18\x01\x92\x80\xc6\x00\x7f\xff\xf5", 1), (b"x", 8_388_597))),
    ),
    ("a text of 16385 characters", "bad_frame", Parts(((b"\x92\x01\x93\x06\xa1c\xda\x40\x01", 1), (b"t", 16_385)))),
    ("16385 packets", "limit", Parts(((b"\xdc\x40\x02\x01", 1), (b"\x92\x05\x02", 16_385)))),
    ("10001 subscriptions", "bad_frame", Parts(((b"\x92\x01\x94\x0d\xdc\x27\x11", 1), (b"\x01", 10_001)))),
    ("a payload nested without end", "bad_frame", Parts(((b"\x92\x01\x93\x18\x01", 1), *_BOTTOMLESS))),
    ("an unknown kind nested without end", "bad_frame", Parts(((b"\x92\x01\x92\x63", 1), *_BOTTOMLESS))),
]


def bad_frames() -> list[dict[str, Any]]:
    """Every bad vector: `name`, `bytes` and `code`."""
    vectors = [_refused(name, data) for name, data in MESSAGES]
    vectors += [_refused(f"{name} as session number", pack([value, [5, 1]])) for name, value in SESSIONS]
    vectors += [_refused(f"packet: {name}", pack([1, value])) for name, value in PACKETS]
    vectors.append(_refused("packet: an extension type in a map", _EXTENSION))
    vectors.append(_refused("a bad packet among good ones", pack([S, [5, 1], [5, "x"], [5, 2]])))
    vectors.append(_refused("a bad packet beside an unknown kind", pack([S, [99], [5]])))
    for name, packet in FULL.items():
        required = REQUIRED.get(name, len(packet))
        vectors += [_refused(f"{name} cut to {n} elements", pack([S, packet[:n]])) for n in range(1, required)]
        vectors += [
            _refused(f"{name} with a wrong type at element {n}", pack([S, [*packet[:n], wrong, *packet[n + 1 :]]]))
            for n, wrong in _wrong_types(packet)
        ]
    vectors += [{"name": name, "bytes": data, "code": code} for name, code, data in LARGE]
    return vectors


def _wrong_types(packet: list[Any]) -> list[tuple[int, Any]]:
    """For every element but the kind, payloads and details a value of another type."""
    wrong = {int: "1", str: 1, bool: 1, dict: [], list: {}}
    payload = packet[:0] if packet[0] not in (12, 13, 22, 23, 24, 25) else [FULL["PUBLISH"][3]]
    details = 4 if packet[0] == 26 else None
    return [(n, wrong[type(value)]) for n, value in enumerate(packet) if n and value not in payload and n != details]


def _refused(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "bytes": data, "code": "bad_frame"}
