"""The invariants of `tools/fuzz`, checked on what hypothesis thinks of, on the seeds, and on what was found once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_sdk.wire.session import Session
from tests.fuzzing.targets import FOUND, TARGETS, Target
from tests.simulation.mutants import planted

found = sorted(FOUND.glob("*/*"))


@st.composite
def changed_seeds(draw: st.DrawFn, target: Target) -> bytes:
    """A seed in which some bytes were replaced, inserted or left out."""
    data = draw(st.sampled_from(list(target.seeds())))
    begin = draw(st.integers(0, len(data)))
    end = draw(st.integers(begin, min(begin + 8, len(data))))
    return data[:begin] + draw(st.binary(max_size=40)) + data[end:]


@pytest.mark.parametrize("name", TARGETS)
def test_the_invariant_holds_whatever_the_bytes(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=400) | changed_seeds(target))
    def explore(data: bytes) -> None:
        target.check(data)

    explore()


@pytest.mark.parametrize("name", TARGETS)
def test_the_invariant_holds_for_the_seeds(name: str) -> None:
    seeds = list(TARGETS[name].seeds())
    assert len(set(seeds)) > 3
    for data in seeds:
        TARGETS[name].check(data)


@pytest.mark.parametrize("path", found, ids=[f"{path.parent.name}-{path.name}" for path in found])
def test_what_broke_an_invariant_once_does_not_any_more(path: Path) -> None:
    TARGETS[path.parent.name].check(path.read_bytes())


def test_every_target_states_its_invariant_in_one_sentence() -> None:
    for target in TARGETS.values():
        assert target.invariant.endswith("."), target.invariant
        assert "\n" not in target.invariant


def breaks(name: str) -> bool:
    """Whether one of the seeds shows that an invariant does not hold."""
    for data in TARGETS[name].seeds():
        try:
            TARGETS[name].check(data)
        except Exception:  # noqa: BLE001 - whatever a target raises is what a fuzzer looks for
            return True
    return False


@pytest.mark.parametrize("bug", ["a lost callee keeps its requests", "debts are not settled"])
def test_a_bug_in_the_core_is_noticed(bug: str) -> None:
    with planted(bug):
        assert breaks("core")
    assert not breaks("core")


def test_a_bug_in_the_decoder_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown: dict[bytes, list[object]] = {}
    monkeypatch.setattr("plugin_sdk.wire.codec._decode_one_by_one", unknown.__getitem__)
    assert breaks("frame")


def test_a_bug_in_the_automaton_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Session) -> None:
        """Stay as it is."""

    monkeypatch.setattr(Session, "reset", forgetful)
    assert breaks("session")


def test_a_bug_in_the_reader_of_manifests_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.supervisor.document._count", lambda node, known: 0)
    monkeypatch.setattr("broker.supervisor.document._DEPTH", 10_000)
    assert breaks("manifest")


def test_a_bug_in_the_reader_of_packages_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.packages.manifest.check_path", lambda path: path)
    assert breaks("package")
