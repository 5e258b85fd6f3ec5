"""What processes use: memory, CPU time and threads, from one pass over /proc (proc(5)).

One small file of each process tells all of it, so that a pass costs about 20 µs for each process of the machine,
however many plugins there are. It is made when somebody wants to know, on a thread, and never by the event loop.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

SHORTEST_SECS = 0.5  # so long a reading serves all who ask
PROC = Path("/proc")
GUARD = b"plugmesh-guard"  # what the supervisor calls the parent of each plugin; whatever that starts stays below it
_PAGE, _HERTZ = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes use together; memory is what is resident, shared pages counted for each of them.

    Guards are forked from one process and share nearly all they have with it: of them only their own share is counted.
    """

    memory_bytes: int = 0
    cpu_secs: float = 0.0
    threads: int = 0
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """One reading: of plugins by process id, of the broker alone, and of everything together."""

    plugins: Mapping[int, Usage]
    broker: Usage
    total: Usage


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    group: int
    session: int
    ticks: int  # of CPU time, its own
    ticks_of_dead: int  # those of children that it has waited for
    threads: int
    born: int
    pages: int
    guards: bool  # it is the guard of a plugin: everything below it belongs to that


class Sampler:
    """Reads what processes use; for any thread.

    Args:
        proc: where the process table is.
        own: process id of the broker.
    """

    def __init__(self, proc: Path = PROC, own: int | None = None) -> None:
        self._proc = proc
        self._own = os.getpid() if own is None else own
        self._lock = threading.Lock()
        self._ticks: dict[tuple[int, int], int] = {}
        self._total_ticks = 0
        self._read_at = float("-inf")
        self._asked: frozenset[int] = frozenset()
        self._last = Measured({}, Usage(), Usage())
        self._shares: dict[tuple[int, int], int] = {}  # of guards, in pages

    def read(self, pids: Collection[int]) -> Measured:
        """What the processes use now, or half a second ago.

        Args:
            pids: the first process of each plugin; with it are counted those of its session and its process group,
                those that have got away to its guard, and all their descendants. One that does not live is left out.
        """
        with self._lock:
            asked = frozenset(pids)
            if time.monotonic() - self._read_at >= SHORTEST_SECS or not asked <= self._asked:
                self._last = self._read({each.pid: each for each in _table(self._proc)}, asked)
                self._asked, self._read_at = asked, time.monotonic()
            return self._last

    def _read(self, table: Mapping[int, _Process], pids: frozenset[int]) -> Measured:
        own = table.get(self._own)
        if own is None:
            return Measured({}, Usage(), Usage())
        children = _children(table.values())
        tree = _with_descendants({self._own}, children)
        every = set(tree)
        plugins: dict[int, Usage] = {}
        before, self._ticks = self._ticks, {}
        self._total_ticks += self._note(own, _ticks(tree, table), before, 0)
        for pid in pids & table.keys():
            found = _with_descendants(_group_of(pid, table, children), children)
            ticks = _ticks(found, table)
            grown = self._note(table[pid], ticks, before, ticks)
            if pid not in tree:
                self._total_ticks += grown
                every |= found
            plugins[pid] = _sum(found, table, self._ticks[pid, table[pid].born])
        alone = Usage(own.pages * _PAGE, own.ticks / _HERTZ, own.threads, 1)
        guards = {pid: replace(table[pid], pages=self._share(table[pid])) for pid in every if table[pid].guards}
        self._shares = {(each.pid, each.born): each.pages for each in guards.values()}
        return Measured(plugins, alone, _sum(every, {**table, **guards}, self._total_ticks))

    def _share(self, guard: _Process) -> int:
        """The pages of a guard, each divided by the number of those that share it: read once, as that is slow."""
        key = guard.pid, guard.born
        if key not in self._shares:
            with suppress(OSError, ValueError, IndexError):
                lines = (self._proc / str(guard.pid) / "smaps_rollup").read_bytes().splitlines()
                (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith(b"Pss:"))
                return kilobytes * 1024 // _PAGE
        return self._shares.get(key, guard.pages)

    def _note(self, first: _Process, ticks: int, before: Mapping[tuple[int, int], int], new: int) -> int:
        """Remember the CPU time of a group; returns by how much it grew.

        It never goes down, though a process takes its own along when it ends and nobody of the group waits for it.

        Args:
            first: of the group.
            ticks: of all of it, now.
            before: what was remembered of all groups.
            new: from where a group counts that was not known before.
        """
        key = (first.pid, first.born)
        known = before.get(key, new)
        self._ticks[key] = max(ticks, known)
        return self._ticks[key] - known


def _table(proc: Path) -> Iterator[_Process]:
    try:
        names = os.listdir(proc)
    except OSError:
        return
    for name in names:
        if name.isdigit():
            # It may have ended since the folder was read.
            with suppress(OSError, ValueError, IndexError), open(f"{proc}/{name}/stat", "rb") as file:
                yield _parse(int(name), file.read())


def _parse(pid: int, line: bytes) -> _Process:
    # The name in parentheses may hold spaces and parentheses, so fields are counted from the last one.
    fields = line[line.rindex(b")") + 2 :].split()
    parent, group, session = map(int, fields[1:4])
    user, system, dead_user, dead_system = map(int, fields[11:15])
    threads, born, pages = int(fields[17]), int(fields[19]), int(fields[21])
    guards = line[line.index(b"(") + 1 : line.rindex(b")")] == GUARD
    return _Process(pid, parent, group, session, user + system, dead_user + dead_system, threads, born, pages, guards)


def _children(processes: Iterable[_Process]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for each in processes:
        found.setdefault(each.parent, []).append(each.pid)
    return found


def _group_of(pid: int, table: Mapping[int, _Process], children: Mapping[int, list[int]]) -> set[int]:
    found = {each.pid for each in table.values() if pid in (each.pid, each.group, each.session)}
    parent = table[pid].parent
    if parent in table and table[parent].guards:
        found.update(children[parent])
    return found


def _with_descendants(pids: set[int], children: Mapping[int, list[int]]) -> set[int]:
    found, open_ends = set(pids), list(pids)
    while open_ends:
        for child in children.get(open_ends.pop(), ()):
            if child not in found:
                found.add(child)
                open_ends.append(child)
    return found


def _ticks(pids: Iterable[int], table: Mapping[int, _Process]) -> int:
    return sum(table[pid].ticks + table[pid].ticks_of_dead for pid in pids)


def _sum(pids: Collection[int], table: Mapping[int, _Process], ticks: int) -> Usage:
    members = [table[pid] for pid in pids]
    pages, threads = sum(each.pages for each in members), sum(each.threads for each in members)
    return Usage(pages * _PAGE, ticks / _HERTZ, threads, len(members))
