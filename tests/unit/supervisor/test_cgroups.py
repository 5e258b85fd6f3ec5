"""Control groups on a tree of files that behaves as the kernel's does where it matters."""

from pathlib import Path

import pytest

from broker.supervisor.cgroups import Groups
from broker.supervisor.confinement import NO_LIMITS, AskedSandbox, ResourceLimits, Sandbox, confinement

LIMITS = ResourceLimits(memory=256 << 20, cpu=0.5, processes=32)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    own = tmp_path / "root" / "system.slice" / "plugmesh.service"
    own.mkdir(parents=True)
    for folder in (tmp_path / "root", own):
        (folder / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (folder / "cgroup.procs").write_text("")
        (folder / "cgroup.subtree_control").write_text("")
    (tmp_path / "own").write_text("1:name=systemd:/x\n0::/system.slice/plugmesh.service\n")
    return own


def groups(tree: Path) -> Groups:
    top = tree.parents[2]
    return Groups(top / "root", top / "own")


def test_the_broker_moves_into_a_leaf_before_it_hands_on_controllers(tree: Path) -> None:
    assert groups(tree).missing == ""
    assert (tree / "broker" / "cgroup.procs").read_text() == "0"
    assert (tree / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_the_limits_of_a_plugin_are_those_of_its_group(tree: Path) -> None:
    folder = Path(groups(tree).open("hello", LIMITS))
    assert folder == tree / "plugin-hello"
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "memory.max": str(256 << 20),
        "memory.oom.group": "1",
        "pids.max": "32",
        "cpu.max": "50000 100000",
    }


def test_a_plugin_without_limits_needs_no_group(tree: Path) -> None:
    assert groups(tree).open("hello", NO_LIMITS) == ""


def test_the_kernel_keeps_nothing_of_a_plugin_that_is_only_to_be_reported(tree: Path) -> None:
    assert groups(tree).open("hello", ResourceLimits(memory=256 << 20, over="report")) == ""


def test_only_the_operator_can_keep_the_kernel_from_keeping_a_limit(tree: Path) -> None:
    report, most = ResourceLimits(over="report"), ResourceLimits(memory=64 << 20)
    by_manifest = confinement(report, AskedSandbox(), NO_LIMITS, Sandbox(), most, "off").limits
    by_operator = confinement(NO_LIMITS, AskedSandbox(), report, Sandbox(), most, "off").limits
    made = groups(tree)
    assert made.open("manifest", by_manifest) != ""
    assert made.open("operator", by_operator) == ""


def test_empty_groups_that_a_killed_broker_left_are_removed(tree: Path) -> None:
    (tree / "plugin-old-1").mkdir()
    assert groups(tree).missing == ""
    assert not (tree / "plugin-old-1").exists()


def test_a_group_that_cannot_hand_on_controllers_is_left_as_it_was_found(tree: Path) -> None:
    (tree / "cgroup.subtree_control").unlink()
    (tree / "cgroup.subtree_control").mkdir()
    assert "directory" in groups(tree).missing
    assert (tree / "cgroup.procs").read_text() == "0", "the broker is back where it was"


def test_what_the_kernel_did_is_told(tree: Path) -> None:
    made = groups(tree)
    folder = Path(made.open("hello", LIMITS))
    (folder / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 1\n")
    (folder / "pids.events").write_text("max 0\n")
    assert (made.kept("hello", "memory"), made.kept("hello", "processes")) == (1, 0)
    (folder / "pids.events").write_text("max 3\n")
    assert made.kept("hello", "processes") == 3


def test_in_a_container_the_broker_leaves_the_top_of_the_tree_too(tree: Path) -> None:
    root = tree.parents[1]
    (tree.parents[2] / "own").write_text("0::/\n")
    assert (groups(tree).missing, (root / "broker").exists()) == ("", False)
    (root / "cgroup.type").write_text("domain\n")
    assert groups(tree).missing == ""
    assert (root / "broker" / "cgroup.procs").read_text() == "0"


def test_an_empty_group_is_removed(tree: Path) -> None:
    made = groups(tree)
    folder = Path(made.open("hello", LIMITS))
    for file in folder.iterdir():
        file.unlink()  # the kernel's files go with their group
    made.close("hello")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda tree: (tree.parents[1] / "cgroup.controllers").unlink(), "is no tree of version 2"),
        (
            lambda tree: (tree.parents[2] / "own").write_text("4:memory:/x\n"),
            "is in no group of version 2",
        ),
        (
            lambda tree: (tree / "cgroup.controllers").write_text("cpu\n"),
            "the controllers memory, pids were not handed to",
        ),
        (lambda tree: (tree / "cgroup.procs").unlink(), "was not handed to this user: with systemd, set Delegate=yes"),
    ],
)
def test_where_there_are_no_groups_the_reason_is_told(tree: Path, spoil: object, reason: str) -> None:
    assert callable(spoil)
    spoil(tree)
    made = groups(tree)
    assert reason in made.missing
    assert made.open("hello", LIMITS) == ""
    made.close("hello")
    assert made.kept("hello", "memory") == 0
