"""What can be fuzzed, by name: each a module whose first sentence is the invariant that it checks.

A module gives `check`, which takes bytes and raises when they break the invariant, and `seeds`, which are bytes to
begin with. Whatever else reads what a stranger wrote, such as an archive, gets a line below and a module beside these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.fuzzing import automaton, frame, hostile, manifest, package

FOUND = Path(__file__).parent / "found"  # inputs that have broken an invariant once, in a folder by target


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes untrusted bytes."""

    name: str
    invariant: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def _target(name: str, module: ModuleType) -> Target:
    assert module.__doc__ is not None, f"{module.__name__} states no invariant"
    return Target(name, module.__doc__.partition("\n\n")[0], module.check, module.seeds)


TARGETS = {
    target.name: target
    for target in (
        _target("frame", frame),
        _target("session", automaton),
        _target("core", hostile),
        _target("manifest", manifest),
        _target("package", package),
    )
}
