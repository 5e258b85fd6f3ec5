"""What lies in the plugin folder, and when a change in it has settled; neither knows of threads or clocks (PLG-7).

Events of the file system are lost, doubled and renamed; so they only say that it is worth looking. What was found
the last times and what is found now decides.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from broker.packages.installed import Mark
from broker.packages.names import SUFFIX

# A file that has not changed for so long is written; that it is whole, only its signature can prove.
DEBOUNCE_SECS = 0.5
# A folder in which something always changes must not keep everything else waiting (notify#150).
CAP_SECS = 5.0

PLUGIN_FILE = "plugin.yaml"
# Tools write these while a plugin runs; a plugin that was reloaded for them would be reloaded for ever.
_LITTER = frozenset({"__pycache__", "node_modules"})
_LITTER_ENDS = (".pyc", "~", ".part", ".tmp", ".log")
MAX_FILES_A_FOLDER = 5000

Scan = Mapping[str, Mark]


class What(StrEnum):
    """What happened to an entry of the plugin folder."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that has settled: a package file, or a plugin folder."""

    name: str
    what: What

    @property
    def is_package(self) -> bool:
        """Whether it is a package file."""
        return is_package(self.name)


@dataclass(frozen=True, slots=True)
class Sight:
    """A change that has not settled.

    Args:
        mark: as it was last seen; None when it was not there.
        first: when it was first seen to differ from what is known.
        since: when it was first seen as it is now.
    """

    mark: Mark | None
    first: float
    since: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known, and what is not settled yet, by name."""

    known: Scan = field(default_factory=dict)
    unsettled: Mapping[str, Sight] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from one look.

    Args:
        seen: to be given to the next look.
        changes: what has settled, by name.
        again: seconds until the next look is worth while; None when nothing is unsettled.
        restless: package files that have been changing for longer than anybody should wait.
    """

    seen: Seen
    changes: tuple[Change, ...] = ()
    again: float | None = None
    restless: tuple[str, ...] = ()


def decide(seen: Seen, found: Scan, now: float) -> Decision:
    """Compares what is found with what is known.

    Changes are reported together once all of them are quiet, so that plugins that were copied together start in the
    order of their dependencies; after the cap those that are quiet go on alone.
    """
    open_ = {
        name: _sight(seen.unsettled.get(name), found.get(name), now)
        for name in seen.known.keys() | seen.unsettled.keys() | found.keys()
        if found.get(name) != seen.known.get(name)
    }
    overdue = {name for name, sight in open_.items() if now - sight.first >= CAP_SECS}
    quiet = {name for name, sight in open_.items() if now - sight.since >= DEBOUNCE_SECS}
    # A package that is still being written is never taken; a folder is taken as it is.
    ready = quiet | {name for name in overdue if not is_package(name)} if overdue or quiet == open_.keys() else set()
    left = {name: sight for name, sight in open_.items() if name not in ready}
    return Decision(
        Seen(_merged(seen.known, {name: open_[name].mark for name in ready}), left),
        tuple(Change(name, _what(seen.known.get(name), open_[name].mark)) for name in sorted(ready)),
        _again(left, bool(overdue), now),
        tuple(sorted(overdue - ready)),
    )


def scan(directory: Path) -> dict[str, Mark]:
    """Every package file and plugin folder, and what tells whether it has changed. Raises OSError."""
    found: dict[str, Mark] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and (mark := _mark(entry)):
                found[entry.name] = mark
    return found


def last_change(folder: Path) -> float:
    """When a file in a plugin folder was written or put there last, in seconds of the wall clock."""
    return max((status.st_ctime for _, status in _files(str(folder))), default=0.0)


def is_package(name: str) -> bool:
    """Whether a name in the plugin folder is that of a package file."""
    return name.endswith(SUFFIX)


def _sight(before: Sight | None, mark: Mark | None, now: float) -> Sight:
    if before is None:
        return Sight(mark, now, now)
    return before if before.mark == mark else Sight(mark, before.first, now)


def _again(left: Mapping[str, Sight], overdue: bool, now: float) -> float | None:
    if not left:
        return None
    quiet = [sight.since + DEBOUNCE_SECS for sight in left.values()]
    cap = min(sight.first for sight in left.values()) + CAP_SECS
    return max(0.0, (min(quiet) if overdue else min(max(quiet), cap)) - now)


def _what(before: Mark | None, after: Mark | None) -> What:
    if after is None:
        return What.REMOVED
    return What.ADDED if before is None else What.CHANGED


def _merged(known: Scan, news: Mapping[str, Mark | None]) -> dict[str, Mark]:
    merged = {**known, **news}
    return {name: mark for name, mark in merged.items() if mark is not None}


def _mark(entry: "os.DirEntry[str]") -> Mark | None:
    try:
        if is_package(entry.name):
            status = entry.stat(follow_symlinks=False)
            return Mark.of(status) if stat.S_ISREG(status.st_mode) else None
        if entry.is_dir() and os.path.exists(os.path.join(entry.path, PLUGIN_FILE)):
            return _folder_mark(entry.path)
    except FileNotFoundError:
        pass
    return None


def _folder_mark(folder: str) -> Mark:
    """One mark for all files of a folder: it differs when one of theirs does."""
    facts = []
    size = newest = 0
    for path, status in _files(folder):
        size += status.st_size
        newest = max(newest, status.st_mtime_ns)
        facts.append((path, status.st_size, status.st_mtime_ns, status.st_ino))
    return Mark(size, newest, hash(tuple(sorted(facts))))


def _files(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    number = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _LITTER)
        for name in sorted(names):
            if name.startswith(".") or name.endswith(_LITTER_ENDS):
                continue
            number += 1
            if number > MAX_FILES_A_FOLDER:
                return
            path = os.path.join(place, name)
            try:
                yield path, os.stat(path)
            except FileNotFoundError:
                continue
