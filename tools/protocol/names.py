"""Subjects, patterns and names that the grammar admits or refuses, which pattern covers which subject, and payloads."""

from __future__ import annotations

from typing import Any

from tools.protocol.values import pack

SIXTEEN = ".".join("abcdefghijklmnop")

GOOD_SUBJECTS = [
    "a",
    "user.login",
    "user.login.2",
    "$broker.status",
    "User-1_x.v2",
    "a!\"#%&'()+,-/:;<=?@[]^_`{|}~",
    SIXTEEN,
    "x" * 256,
]
BAD_SUBJECTS = [
    "",
    ".",
    "a.",
    ".a",
    "a..b",
    "a b",
    "a\tb",
    "a\n",
    "a\x00b",
    "a\x7f",
    "ü",
    "a.漢",
    "*",
    ">",
    "a.*",
    "a.>",
    "a*",
    "a.b>",
    SIXTEEN + ".q",
    "x" * 257,
]
GOOD_PATTERNS = ["a", "user.login", "*", ">", "*.*", "user.*", "*.login", "user.>", "*.>", "$broker.>", "a.*.c.>"]
GOOD_PATTERNS += [".".join("*" * 16), ".".join("*" * 15) + ".>", "x" * 256]
BAD_PATTERNS = ["", ".", "a.", ".a", "a..b", "a b", ">.a", "a.>.b", "a*", "*a", "a>", ">>", "**", "a.b*", "a.\n", "ü"]
BAD_PATTERNS += [".".join("*" * 17), ".".join("*" * 16) + ".>", "x" * 257]
GOOD_NAMES = ["a", "Z", "hello", "mail-2", "a_b", "n" * 64]
BAD_NAMES = ["", "1a", "-a", "_a", "a.b", "a b", "a\n", "ü", "aü", "$a", "*", "n" * 65]

# Subjects across, patterns down: which subjects each pattern covers.
SUBJECTS = ["a", "b", "a.b", "a.c", "b.b", "a.b.c", "a.b.c.d", "$broker", "$broker.up", "$broker.up.now"]
COVERS: dict[str, list[str]] = {
    "a": ["a"],
    "a.b": ["a.b"],
    "*": ["a", "b"],
    "*.*": ["a.b", "a.c", "b.b"],
    "a.*": ["a.b", "a.c"],
    "*.b": ["a.b", "b.b"],
    "*.b.*": ["a.b.c"],
    "a.*.c": ["a.b.c"],
    ">": ["a", "b", "a.b", "a.c", "b.b", "a.b.c", "a.b.c.d"],
    "a.>": ["a.b", "a.c", "a.b.c", "a.b.c.d"],
    "*.>": ["a.b", "a.c", "b.b", "a.b.c", "a.b.c.d"],
    "a.b.c.>": ["a.b.c.d"],
    "a.b.c.d.>": [],
    "$broker": ["$broker"],
    "$broker.*": ["$broker.up"],
    "$broker.>": ["$broker.up", "$broker.up.now"],
}

GOOD_PAYLOADS: list[tuple[str, bytes, dict[str, str], bytes]] = [
    ("nothing", pack([{}, b""]), {}, b""),
    ("a body", pack([{}, b"\x00\xff"]), {}, b"\x00\xff"),
    ("headers", pack([{"content-type": "text/plain", "ü": "→"}, b"x"]), {"content-type": "text/plain", "ü": "→"}, b"x"),
    ("a body of 256 bytes", pack([{}, b"x" * 256]), {}, b"x" * 256),
    ("bin 16 for a short body", b"\x92\x80\xc5\x00\x01x", {}, b"x"),
    ("map 32 for no headers", b"\x92\xdf\x00\x00\x00\x00\xc4\x00", {}, b""),
]
BAD_PAYLOADS: list[tuple[str, bytes]] = [
    ("no bytes", b""),
    ("nil", pack(None)),
    ("a map", pack({"a": "b"})),
    ("no body", pack([{}])),
    ("a third element", pack([{}, b"", 1])),
    ("nil for no headers", pack([None, b""])),
    ("a body that is a string", pack([{}, "text"])),
    ("a header that is a number", pack([{"a": 1}, b""])),
    ("a header name that is a number", pack([{1: "a"}, b""])),
    ("a header that is not UTF-8", b"\x92\x81\xa1a\xa1\xff\xc4\x00"),
    ("a body that was cut", b"\x92\x80\xc4\x05abc"),
    ("bytes after the payload", pack([{}, b""]) + b"\x00"),
]


def matches() -> list[list[Any]]:
    """Every pattern with every subject, and whether it covers it."""
    return [[pattern, subject, subject in covered] for pattern, covered in COVERS.items() for subject in SUBJECTS]
