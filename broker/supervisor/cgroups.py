"""Control groups, version 2: limits that the kernel itself keeps for all processes of a plugin together.

They need a subtree that was handed to the broker, as systemd does with `Delegate=yes`, and no process in its inner
nodes: the broker moves itself into a leaf first (cgroups(7), "no internal processes"). Machines without that are told
apart by `Groups.missing`; limits are then only watched.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from errno import EBUSY
from pathlib import Path

from broker.supervisor.confinement import ResourceLimits

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")

_PERIOD = 100_000  # microseconds; the kernel's default for cpu.max
_LEAF, _PREFIX = "broker", "plugin-"
_KEPT = {"memory": ("memory.events", "oom_kill"), "processes": ("pids.events", "max")}


class Groups:
    """The groups of one broker's plugins.

    Args:
        root: where the tree is mounted.
        own: the file that says in which group this process is.

    `missing` says why there are none; it is empty when they work.
    """

    def __init__(self, root: Path = ROOT, own: Path = OWN) -> None:
        self._base: Path | None = None
        self.missing = ""
        try:
            self._base = _prepare(root, own)
        except OSError as error:
            self.missing = f"cgroup v2: {error.strerror or error}"

    def open(self, name: str, limits: ResourceLimits) -> str:
        """Make the group of one run of a plugin; raises OSError.

        Returns:
            Its folder; nothing where there are no groups or no such limits, and where they are only to be reported: the
            kernel does not report, it kills.
        """
        wanted = _files(limits)
        if self._base is None or not wanted:
            return ""
        group = self._base / f"{_PREFIX}{name}"
        group.mkdir()
        for file, value in wanted.items():
            (group / file).write_text(value)
        if limits.memory is not None and (group / "memory.swap.max").exists():
            # What is only pushed out to the disk is not kept from growing.
            (group / "memory.swap.max").write_text("0")
        return str(group)

    def kept(self, name: str, limit: str) -> int:
        """How often the kernel had to keep a limit: `memory` by killing, `processes` by refusing one."""
        file, event = _KEPT[limit]
        return 0 if self._base is None else _count(self._base / f"{_PREFIX}{name}" / file, event)

    def close(self, name: str) -> None:
        """Remove the group of a run that has ended."""
        if self._base is not None:
            # Processes that could not be killed keep it, until the next broker tidies up.
            with suppress(OSError):
                (self._base / f"{_PREFIX}{name}").rmdir()


def find_base(root: Path = ROOT, own: Path = OWN) -> Path:
    """The group under which those of plugins can be made, as far as a look can tell; raises OSError with the reason."""
    if not (root / "cgroup.controllers").exists():
        raise OSError(0, f"{root} is no tree of version 2")
    path = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), None)
    if path is None:
        raise OSError(0, "this process is in no group of version 2")
    base = root / path.strip("/")
    lacking = set(CONTROLLERS) - set((base / "cgroup.controllers").read_text().split())
    if lacking:
        raise OSError(0, f"the controllers {', '.join(sorted(lacking))} were not handed to {base}")
    if not os.access(base / "cgroup.procs", os.W_OK):
        raise OSError(0, f"{base} was not handed to this user: with systemd, set Delegate=yes")
    return base


def _prepare(root: Path, own: Path) -> Path:
    """The group under which those of plugins are made, ready for it; raises OSError."""
    base = find_base(root, own)
    # Only the true root, which has no type, may hold processes and hand on controllers; that of a container may not.
    leaf = base / _LEAF if base != root or (base / "cgroup.type").exists() else None
    if leaf:
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text("0")
    try:
        (base / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
    except OSError as error:
        if leaf:
            (base / "cgroup.procs").write_text("0")
            with suppress(OSError):
                leaf.rmdir()
        if error.errno == EBUSY:
            raise OSError(0, f"{base} has other processes in it: give the broker a group of its own") from None
        raise
    for left in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            left.rmdir()
    return base


def _files(limits: ResourceLimits) -> Mapping[str, str]:
    files: dict[str, str] = {}
    if limits.over == "report":
        return files
    if limits.memory is not None:
        files |= {"memory.max": str(limits.memory), "memory.oom.group": "1"}
    if limits.processes is not None:
        files["pids.max"] = str(limits.processes)
    if limits.cpu is not None:
        files["cpu.max"] = f"{max(1_000, round(limits.cpu * _PERIOD))} {_PERIOD}"
    return files


def _count(events: Path, name: str) -> int:
    try:
        return int(dict(line.split() for line in events.read_text().splitlines()).get(name, 0))
    except (OSError, ValueError):
        return 0
