"""The dependency plan: who starts before whom, and who cannot start at all and why.

Pure: values in, values out. The same plan serves starting (levels in order) and stopping (in reverse).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter

from packaging.version import Version

from broker.supervisor.mounts import mount_points, mount_too_deep
from broker.supervisor.needs import Need

Graph = dict[str, set[str]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the plan must know of one plugin.

    Args:
        version: None when nobody knows it, as for a process started by hand.
        origin: where it was found, for texts.
        requires: plugins that must run before it starts.
        parent: one more of those, under whose name its services appear.
        after: plugins that start before it if they start at all.
        fault: why its own description cannot be used; empty when it can.
    """

    name: str
    version: Version | None = None
    origin: str = ""
    requires: tuple[Need, ...] = ()
    parent: Need | None = None
    after: tuple[str, ...] = ()
    conflicts: tuple[Need, ...] = ()
    enabled: bool = True
    fault: str = ""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Everything that must run before it starts."""
        return self.requires if self.parent is None else (self.parent, *self.requires)

    @property
    def parent_name(self) -> str:
        """The plugin that it mounts on; empty for none."""
        return self.parent.name if self.parent else ""

    def __str__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"{self.name}{version}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a plugin cannot start.

    Args:
        chain: the plugin itself, then what it needs, down to the one at fault.
        cause: what is wrong with the last of the chain.
        mounts: whether the second of the chain is the parent of the first.
    """

    chain: tuple[str, ...]
    cause: str
    mounts: bool = False

    @property
    def text(self) -> str:
        """One sentence with the whole chain."""
        if len(self.chain) == 1:
            return self.cause
        first, second = self.chain[:2]
        arrows = " → ".join(self.chain)
        needs = "mounts on" if self.mounts else "needs"
        return f"plugin {first!r} {needs} {second}, which cannot start ({arrows}): {self.cause}"

    def blocks(self, name: str, *, mounts: bool = False) -> "Problem":
        """The same trouble as a plugin meets it that needs this one, or mounts on it."""
        return Problem((name, *self.chain), self.cause, mounts)


@dataclass(frozen=True, slots=True)
class Plan:
    """An order for all that can start, and a problem for each that cannot.

    Args:
        levels: a plugin's hard and soft predecessors all stand in earlier levels.
        before: predecessors of each plugin in `levels`, hard and soft.
        requires: the hard ones alone.
        mounts: the name under which each plugin serves; none for one that is its own ancestor.
        notes: soft edges that were left out, in words.
        unmet: plugins with a need of their own that nobody meets.
        conflicting: plugins that cannot start beside another one.
        cycles: each round of plugins that need each other, once.
    """

    levels: tuple[tuple[str, ...], ...] = ()
    problems: Mapping[str, Problem] = field(default_factory=dict)
    before: Mapping[str, frozenset[str]] = field(default_factory=dict)
    requires: Mapping[str, frozenset[str]] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unmet: frozenset[str] = frozenset()
    conflicting: frozenset[str] = frozenset()
    cycles: tuple[tuple[str, ...], ...] = ()

    def needed_by(self, name: str) -> tuple[str, ...]:
        """The plugin with everything it requires, directly or not, in start order; nothing if it cannot start."""
        wanted = _reachable(self.requires, name) | {name} if name in self.requires else set()
        return tuple(each for level in self.levels for each in level if each in wanted)

    def needing(self, name: str) -> tuple[str, ...]:
        """The plugin with everything that requires it, directly or not, in stop order."""
        found = {name} | {each for each in self.requires if name in _reachable(self.requires, each)}
        return tuple(each for level in reversed(self.levels) for each in level if each in found)


def make_plan(candidates: Iterable[Candidate]) -> Plan:
    """Plans the start of all enabled candidates; a bad one costs only itself and those that need it.

    Args:
        candidates: every installed plugin, disabled and faulty ones too; names are unique.
    """
    known = {each.name: each for each in sorted(candidates, key=lambda each: each.name)}
    usable = {name: each for name, each in known.items() if each.enabled and not each.fault}
    problems = {each.name: Problem((each.name,), each.fault) for each in known.values() if each.fault}
    unmet = {name: _unmet_needs(each, known) for name, each in usable.items()}
    conflicts = {name: _conflicts(each, known) for name, each in usable.items()}
    for name in usable:
        if causes := unmet[name] + conflicts[name]:
            problems[name] = Problem((name,), "; ".join(causes))
    hard = {name: {need.name for need in each.needs} for name, each in usable.items()}
    cycles = tuple(_cycles(_without(hard, problems)))
    problems |= _in_cycles(cycles, usable)
    mounts = mount_points({name: each.parent_name for name, each in known.items()})
    problems |= _too_deep(usable, mounts)
    problems |= _blocked(hard, problems, usable)
    hard = _without(hard, problems)
    order, notes = _with_soft_edges(hard, usable)
    return Plan(
        levels=tuple(_levels(order)),
        problems=problems,
        before={name: frozenset(before) for name, before in order.items()},
        requires={name: frozenset(before) for name, before in hard.items()},
        mounts=mounts,
        notes=tuple(notes),
        unmet=frozenset(filter(unmet.get, unmet)),
        conflicting=frozenset(filter(conflicts.get, conflicts)),
        cycles=cycles,
    )


def _unmet_needs(each: Candidate, known: Mapping[str, Candidate]) -> list[str]:
    return [cause for need in each.needs if (cause := _unmet(each, need, known))]


def _conflicts(each: Candidate, known: Mapping[str, Candidate]) -> list[str]:
    others = (need for need in each.conflicts if need.name != each.name)
    return [cause for need in others if (cause := _conflict(each, need, known))]


def _unmet(each: Candidate, need: Need, known: Mapping[str, Candidate]) -> str:
    other = known.get(need.name)
    needs = "mounts on" if need is each.parent else "needs"
    if other is None:
        return f"plugin {each.name!r} {needs} {need} but {_missing(each, need, known)}"
    if not other.enabled:
        return f"plugin {each.name!r} {needs} {need} but {other} is disabled: enable it{_place(other)}"
    if not other.fault and not need.admits(other.version):
        return f"plugin {each.name!r} {needs} {need} but {other} is installed{_place(other)}"
    return ""


def _conflict(each: Candidate, need: Need, known: Mapping[str, Candidate]) -> str:
    other = known.get(need.name)
    if other is None or not other.enabled or other.fault or not need.admits(other.version):
        return ""
    return f"plugin {each.name!r} conflicts with {need} and {other} is enabled{_place(other)}: disable one of them"


def _missing(each: Candidate, need: Need, known: Mapping[str, Candidate]) -> str:
    near = get_close_matches(need.name, sorted(known.keys() - {each.name}), n=1, cutoff=0.75)
    way_out = f"did you mean {near[0]!r}?" if near else "install it"
    return f"no plugin {need.name!r} is installed; {way_out}"


def _place(each: Candidate) -> str:
    return f" (from {each.origin})" if each.origin else ""


def _without(graph: Graph, names: Iterable[str]) -> Graph:
    gone = set(names)
    return {name: before - gone for name, before in graph.items() if name not in gone}


def _cycles(graph: Graph) -> Iterator[tuple[str, ...]]:
    while cycle := _cycle(graph):
        yield cycle
        graph = _without(graph, cycle)


def _in_cycles(cycles: Iterable[tuple[str, ...]], usable: Mapping[str, Candidate]) -> dict[str, Problem]:
    found: dict[str, Problem] = {}
    for cycle in cycles:
        mounts = [usable[name].parent_name == other for name, other in zip(cycle, (*cycle[1:], cycle[0]), strict=True)]
        needs = "mounts on itself" if all(mounts) else "needs itself"
        where = "'parent'" if all(mounts) else "'requires' or 'parent'" if any(mounts) else "'requires'"
        for index, name in enumerate(cycle):
            arrows = " → ".join((*cycle[index:], *cycle[: index + 1]))
            found[name] = Problem((name,), f"plugin {name!r} {needs}: {arrows}; drop one of these from {where}")
    return found


def _cycle(graph: Graph) -> tuple[str, ...]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib puts each before the one that needs it, and the first again at the end.
        nodes: list[str] = error.args[1]
        return tuple(reversed(nodes[1:]))
    return ()


def _too_deep(usable: Iterable[str], mounts: Mapping[str, str]) -> dict[str, Problem]:
    told = {name: mount_too_deep(name, mounts.get(name, "")) for name in usable}
    return {name: Problem((name,), text) for name, text in told.items() if text}


def _blocked(hard: Graph, problems: Mapping[str, Problem], usable: Mapping[str, Candidate]) -> dict[str, Problem]:
    """The problems of those that need a plugin with a problem, nearest first so that chains are short."""
    found: dict[str, Problem] = {}
    edge = dict(problems)
    while edge:
        nearer: dict[str, Problem] = {}
        for name, before in hard.items():
            culprits = sorted(before & edge.keys())
            if culprits and name not in problems and name not in found:
                nearer[name] = edge[culprits[0]].blocks(name, mounts=usable[name].parent_name == culprits[0])
        found |= nearer
        edge = nearer
    return found


def _with_soft_edges(hard: Graph, usable: Mapping[str, Candidate]) -> tuple[Graph, list[str]]:
    order = {name: set(before) for name, before in hard.items()}
    notes = []
    for name in order:
        for other in usable[name].after:
            if other not in order or other in order[name]:
                continue
            if other == name or name in _reachable(order, other):
                notes.append(f"plugin {name!r} asks to start after {other}, which itself starts after it: ignored")
            else:
                order[name].add(other)
    return order, notes


def _reachable(graph: Mapping[str, Iterable[str]], start: str) -> set[str]:
    seen: set[str] = set()
    open_ends = [start]
    while open_ends:
        for name in graph.get(open_ends.pop(), ()):
            if name not in seen:
                seen.add(name)
                open_ends.append(name)
    return seen


def _levels(order: Graph) -> Iterator[tuple[str, ...]]:
    sorter = TopologicalSorter(order)
    sorter.prepare()
    while sorter.is_active():
        ready = tuple(sorted(sorter.get_ready()))
        yield ready
        sorter.done(*ready)
