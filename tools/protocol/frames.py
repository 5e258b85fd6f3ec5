"""Frames that every implementation must take: the meaning by hand, the bytes by the msgpack package."""

from __future__ import annotations

from typing import Any

from tools.protocol.values import Parts, pack

S = 4_611_686_018_427_387_905  # a session number as REGISTERED gives it: beyond what a double can hold
EMPTY: list[Any] = [{}, b""]
HEADERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "message-id": "m1"}
PAYLOAD: list[Any] = [HEADERS, pack({"user_id": "12345"})]
INFO = {"pid": 4711, "state": "running", "load": 0.5, "tags": ["a", "b"], "more": {"on": True, "off": None}}

# Every kind with all of its elements. The shorter forms and most of the bad frames are derived from these.
FULL: dict[str, list[Any]] = {
    "REGISTER": [1, [1, 2], "plugin", "hello", "1.0.0", "blue", "n-1", "key", "go 1.24", "x/1", ["hello.greet"], INFO],
    "REGISTERED": [
        *(2, 1, S, 5000, 1_048_576, "hello", {"frame_bytes": 8_388_608, "chunk_credit": 64}),
        {"publish": ["user.welcome", "log.>"], "call": []},
    ],
    "REFUSED": [3, "duplicate_name", "plugin 'hello' is registered already by process 4711", True],
    "PING": [4, 17, INFO],
    "PONG": [5, 17],
    "GOODBYE": [6, "shutting_down", "the broker stops"],
    "OK": [7, 3],
    "SUBSCRIBE": [10, 3, "user.*", "mailers", {"overflow": "drop_oldest", "max_pending": 100, "last": True}],
    "UNSUBSCRIBE": [11, 4, 3],
    "PUBLISH": [12, 1, "user.login", PAYLOAD],
    "EVENT": [13, [3, 300, 70_000], "user.login", PAYLOAD],
    "CREDIT": [14, 0, 262_144],
    "SERVE": [20, 5, "hello.greet", {"concurrency": 8}],
    "WITHDRAW": [21, 6, "hello.greet"],
    "CALL": [22, 7, "hello.greet", PAYLOAD, 5000, {"wait_ready_ms": 1000, "stream": True}],
    "REQUEST": [23, 8, "hello.greet", PAYLOAD, 4999, {"stream": True}],
    "REPLY": [24, 8, PAYLOAD],
    "CHUNK": [25, 8, PAYLOAD],
    "ERROR": [26, 8, "failed", "KeyError: 'user_id'", {"key": "user_id"}],
    "CANCEL": [27, 8],
}

# How many elements must be there, the kind included; what follows may be left out.
REQUIRED: dict[str, int] = {
    "REGISTER": 7,
    "REGISTERED": 6,
    "REFUSED": 3,
    "PING": 2,
    "GOODBYE": 2,
    "SUBSCRIBE": 3,
    "SERVE": 3,
    "CALL": 5,
    "REQUEST": 5,
    "ERROR": 4,
}

# Other spellings of values that have a shorter one: legal msgpack, so everybody must read them.
LONG_FORMS: list[tuple[str, bytes, list[Any]]] = [
    ("array 16 for the frame", b"\xdc\x00\x02\x01\x92\x05\x02", [1, [5, 2]]),
    ("array 32 for the frame", b"\xdd\x00\x00\x00\x02\x01\x92\x05\x02", [1, [5, 2]]),
    ("array 16 for a packet", b"\x92\x01\xdc\x00\x02\x05\x02", [1, [5, 2]]),
    ("uint 64 for a small session number", b"\x92\xcf\x00\x00\x00\x00\x00\x00\x00\x01\x92\x05\x02", [1, [5, 2]]),
    ("uint 8 for a small kind", b"\x92\x01\x92\xcc\x05\x02", [1, [5, 2]]),
    ("int 64 for a positive number", b"\x92\x01\x92\x05\xd3\x00\x00\x00\x00\x00\x00\x00\x02", [1, [5, 2]]),
    ("str 8 for a short string", b"\x92\x01\x92\x06\xd9\x01a", [1, [6, "a"]]),
    ("str 32 for a short string", b"\x92\x01\x92\x06\xdb\x00\x00\x00\x01a", [1, [6, "a"]]),
    ("map 16 for a small map", b"\x92\x01\x93\x04\x02\xde\x00\x01\xa1a\x01", [1, [4, 2, {"a": 1}]]),
    ("float 32 in stats", b"\x92\x01\x93\x04\x02\x81\xa1a\xca\x3f\x00\x00\x00", [1, [4, 2, {"a": 0.5}]]),
    ("bin 32 for a short body", b"\x92\x01\x93\x18\x02\x92\x80\xc6\x00\x00\x00\x01a", [1, [24, 2, [{}, b"a"]]]),
]

AT_THE_LIMIT: list[tuple[str, list[Any]]] = [
    ("a subject of 256 bytes", [S, [12, 0, "a" * 256, EMPTY]]),
    ("a name of 64 characters", [S, [6, "c" * 64]]),
    ("a token of 512 characters", [0, [1, [1], "client", "probe", "", "", "n", "t" * 512]]),
    ("16 protocol versions", [0, [1, list(range(1, 17)), "client", "probe", "", "", "n"]]),
    ("64 entries in a map", [S, [4, 1, {f"k{number}": number for number in range(64)}]]),
    ("values four levels deep in a map", [S, [4, 1, {"a": [{"b": [{"c": 1}]}]}]]),
    ("the largest number", [S, [5, 2**63 - 1]]),
]
LARGE: list[tuple[str, Parts, int]] = [
    ("16384 packets", Parts(((b"\xdc\x40\x01\x01", 1), (b"\x92\x05\x02", 16_384))), 16_384),
    ("a text of 16384 characters", Parts(((b"\x92\x01\x93\x06\xa1c\xda\x40\x00", 1), (b"t", 16_384))), 1),
    ("a frame of 8 MiB", Parts(((b"\x92\x01\x93\x18\x01\x92\x80\xc6\x00\x7f\xff\xf4", 1), (b"x", 8_388_596))), 1),
]


def good_frames() -> list[dict[str, Any]]:
    """Every good vector: `name`, `bytes`, and `frame` (its meaning) or `count` (of its packets)."""
    vectors = [_vector(f"{name} with every element", [_session(name), packet]) for name, packet in FULL.items()]
    vectors += [
        _vector(f"{name} without what may be left out", [_session(name), FULL[name][:length]])
        for name, length in REQUIRED.items()
    ]
    vectors += [
        _vector(f"{name} with elements of a later version", [_session(name), [*packet, 99, {"later": [1]}]])
        for name, packet in FULL.items()
    ]
    vectors += [
        _vector("no packet at all", [S]),
        _vector("several packets in one frame", [S, FULL["SERVE"], FULL["SUBSCRIBE"], FULL["PUBLISH"], [5, 1]]),
        _vector("an unknown kind", [S, [99, "of a later version", {"any": [b"thing"]}]]),
        _vector("unknown kinds among known ones", [S, [5, 1], [8], [2**64 - 1, 1], [5, 2]]),
        _vector("nil for the elements that may be nil", [0, [1, [1], "client", "probe", "", "", "n", None]]),
        _vector("nil for group and options", [S, [10, 1, "a", None], [22, 2, "a", EMPTY, 1, None]]),
        _vector("text beyond ASCII", [S, [6, "später", "→ ✓ 漢字"]]),
    ]
    vectors += [_vector(name, frame) for name, frame in AT_THE_LIMIT]
    vectors += [{"name": name, "bytes": data, "frame": frame} for name, data, frame in LONG_FORMS]
    vectors += [{"name": name, "bytes": data, "count": count} for name, data, count in LARGE]
    return vectors


def _vector(name: str, frame: list[Any]) -> dict[str, Any]:
    return {"name": name, "bytes": pack(frame), "frame": frame}


def _session(name: str) -> int:
    return 0 if name in ("REGISTER", "REFUSED") else S
