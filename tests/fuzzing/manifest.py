"""Any bytes as a plugin.yaml are a manifest, or a failure that names the file: never anything else, and soon.

What was read means the same when it is read again, and can be carried to the plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec

from broker.supervisor.document import BadDocument, read_document
from broker.supervisor.manifest import Manifest, Overrides
from broker.supervisor.section import read_as

_ROOT = Path(__file__).parents[2]


def check(data: bytes) -> None:
    """Raise AssertionError, or anything else, when the bytes break the invariant."""
    path = _file()
    path.write_bytes(data)
    first, again = _read(path), _read(path)
    assert first == again
    if isinstance(first, str):
        assert all(line.startswith(str(path)) for line in first.splitlines()), first
        return
    assert first.id
    merged = first.overridden(Overrides(config=first.config, env=first.env))
    assert merged.config == first.config
    # It travels in the body of $plugin.initialize.
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(first.config)) == first.config


def seeds() -> Iterator[bytes]:
    """The manifests of the plugins that are here, and those that were trouble once."""
    for path in sorted((*_ROOT.glob("services/*/plugin.yaml"), *_ROOT.glob("tests/plugins/*/plugin.yaml"))):
        yield path.read_bytes()
    yield b'name: a\nversion: "1"\nenv: &e {A: b}\nconfig: {<<: *e, x: [1, 0x1f, ~, .inf, 2020-01-01]}\n'
    yield b'name: a\nversion: "1"\nconfig: &a {b: *a}\nafter: [b]\nrequires: ["c>=1,<2"]\n'
    yield b"name: !!binary aGVsbG8=\nversion: !!float x\n? [k]\n: v\n--- more\n"
    yield b'name: a\nversion: "1"\nconfig: {deep: ' + b"[" * 120 + b"]" * 120 + b"}\n"


@cache
def _file() -> Path:
    return Path(mkdtemp(prefix="plugmesh-fuzz-")) / "plugin.yaml"


def _read(path: Path) -> Manifest | str:
    try:
        return read_as(Manifest, read_document(path))
    except BadDocument as error:
        return str(error)
