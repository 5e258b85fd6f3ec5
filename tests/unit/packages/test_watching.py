"""When a change in the plugin folder counts: each case is a story of looks, with the time of each (PLG-7)."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from broker.packages.installed import Mark
from broker.packages.watching import Seen, decide, scan

A, B, C = (Mark(number, number, number) for number in (1, 2, 3))
SAME_SIZE = Mark(1, 9, 1)
OTHER_FILE = Mark(1, 1, 9)

Look = tuple[float, Mapping[str, Mark]]
Story = list[Look]


def told(known: Mapping[str, Mark], story: Story) -> list[tuple[float, str]]:
    """What is reported, and when."""
    seen, found = Seen(known), []
    for now, entries in story:
        decision = decide(seen, entries, now)
        seen = decision.seen
        found += [(now, f"{change.name} {change.what}") for change in decision.changes]
    return found


@pytest.mark.parametrize(
    ("known", "story", "expected"),
    [
        pytest.param({"a.spk": A}, [(0, {"a.spk": A}), (9, {"a.spk": A})], [], id="what is known is no change"),
        pytest.param({}, [(0, {"a.spk": A})], [], id="nothing counts at the first look"),
        pytest.param({}, [(0, {"a.spk": A}), (0.4, {"a.spk": A})], [], id="nor before it has been quiet"),
        pytest.param({}, [(0, {"a.spk": A}), (0.5, {"a.spk": A})], [(0.5, "a.spk added")], id="new and quiet"),
        pytest.param(
            {}, [(0, {"a.spk": A}), (0.5, {"a.spk": A}), (1, {"a.spk": A})], [(0.5, "a.spk added")], id="told once"
        ),
        pytest.param(
            {"a.spk": A}, [(0, {"a.spk": SAME_SIZE}), (1, {"a.spk": SAME_SIZE})], [(1, "a.spk changed")], id="time"
        ),
        pytest.param(
            {"a.spk": A}, [(0, {"a.spk": OTHER_FILE}), (1, {"a.spk": OTHER_FILE})], [(1, "a.spk changed")], id="inode"
        ),
        pytest.param({"a.spk": A}, [(0, {}), (1, {})], [(1, "a.spk removed")], id="removed"),
        pytest.param(
            {"a.spk": A},
            [(0, {}), (0.3, {"a.spk": B}), (0.7, {"a.spk": B}), (0.8, {"a.spk": B})],
            [(0.8, "a.spk changed")],
            id="replaced by removing it first is not removed",
        ),
        pytest.param({"a.spk": A}, [(0, {}), (0.3, {"a.spk": A}), (2, {"a.spk": A})], [], id="gone for a moment"),
        pytest.param(
            {"a.spk": A}, [(0, {"b.spk": A}), (1, {"b.spk": A})], [(1, "a.spk removed"), (1, "b.spk added")], id="moved"
        ),
        pytest.param(
            {},
            [(0, {"a.spk": A}), (0.4, {"a.spk": B}), (0.8, {"a.spk": C}), (1.2, {"a.spk": C}), (1.3, {"a.spk": C})],
            [(1.3, "a.spk added")],
            id="copied slowly",
        ),
        pytest.param(
            {},
            [(0, {"a.spk": A}), *((t, {"a.spk": A, "b.spk": B}) for t in (0.4, 0.6, 0.9))],
            [(0.9, "a.spk added"), (0.9, "b.spk added")],
            id="many are told together",
        ),
        pytest.param(
            {},
            [(t / 2, {"a.spk": A, "b.spk": Mark(t, t, t)}) for t in range(13)],
            [(5.0, "a.spk added")],
            id="one that is always written keeps another waiting for 5 s only, and is never taken itself",
        ),
        pytest.param(
            {"folder": A},
            [(t / 2, {"folder": Mark(t + 5, t, t)}) for t in range(12)],
            [(5.0, "folder changed")],
            id="a folder that always changes is taken after 5 s",
        ),
        pytest.param({}, [(0, {"a.spk": A}), (0.4, {}), (2, {})], [], id="what came and went was never there"),
    ],
)
def test_a_change_counts_when_it_has_settled(
    known: Mapping[str, Mark], story: Story, expected: list[tuple[float, str]]
) -> None:
    assert told(known, story) == expected


def test_it_says_when_the_next_look_is_worth_while() -> None:
    first = decide(Seen(), {}, 0)
    assert first.again is None
    seen = decide(Seen(), {"a.spk": A}, 10.0)
    assert seen.again == pytest.approx(0.5)
    later = decide(seen.seen, {"a.spk": A, "b.spk": B}, 10.3)
    assert later.again == pytest.approx(0.5)
    assert decide(later.seen, {"a.spk": A, "b.spk": B}, 10.8).again is None


def test_a_file_that_is_never_finished_is_named() -> None:
    seen, named = Seen(), []
    for tick in range(24):
        decision = decide(seen, {"a.spk": Mark(tick, tick, 1)}, tick / 4)
        seen = decision.seen
        named.append(decision.restless)
        assert decision.again is not None
    assert named == [()] * 20 + [("a.spk",)] * 4


class TestScan:
    def test_only_packages_and_plugin_folders_are_seen(self, tmp_path: Path) -> None:
        for name in ("a.spk", ".b.spk", "a.spk.part", "notes.txt", "a.zip"):
            (tmp_path / name).write_text("x")
        (tmp_path / "link.spk").symlink_to(tmp_path / "a.spk")
        for name in ("plugin", "other", ".hidden"):
            (tmp_path / name).mkdir()
        (tmp_path / "plugin" / "plugin.yaml").write_text("name: plugin")
        (tmp_path / ".hidden" / "plugin.yaml").write_text("name: hidden")
        assert scan(tmp_path).keys() == {"a.spk", "plugin"}

    def test_any_file_of_a_folder_marks_it_but_not_what_tools_leave_behind(self, tmp_path: Path) -> None:
        folder = tmp_path / "plugin"
        (folder / "lib" / "__pycache__").mkdir(parents=True)
        (folder / "plugin.yaml").write_text("name: plugin")
        (folder / "lib" / "code.py").write_text("a = 1")
        before = scan(tmp_path)
        for litter in ("lib/__pycache__/code.pyc", ".git", "lib/code.py~", "plugin.log"):
            (folder / litter).write_text("x")
        assert scan(tmp_path) == before
        os.utime(folder / "lib" / "code.py", ns=(1, 1))
        assert scan(tmp_path) != before

    def test_a_folder_that_cannot_be_read_is_not_an_empty_one(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="nowhere"):
            scan(tmp_path / "nowhere")
