"""The graph of a mesh, drawn as text, for Mermaid and for Graphviz."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from broker.cli.figures import span
from plugin_sdk.wire.subjects import is_reserved, matches

MOST_ALIKE = 8  # subjects that the same subscriptions cover; more of them, such as `user.4711.login`, are shown as one

Edge = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Graph:
    """Peers by name with their role, and who is bound to what.

    `subjects` are those seen or subscribed to; `published` leads from peers to subjects, `delivered` from subjects to
    peers; `called` from peers to services, `served` from services to peers.
    """

    roles: dict[str, str]
    published: list[Edge]
    delivered: list[Edge]
    called: list[Edge]
    served: list[Edge]
    observed_secs: float
    missed: int


def read_graph(answer: dict[str, Any], clients: bool) -> Graph:
    """The answer of `$broker.graph`, brought down to what can be drawn.

    Args:
        answer: of the broker.
        clients: whether clients belong to it.
    """
    peers = {each["name"]: each for each in answer["peers"] if clients or each["role"] == "plugin"}
    called = [each for each in answer["called"] if not is_reserved(each["service"])]
    # Those of whom nothing is left but what they did.
    roles = {each["name"]: "gone" for each in (*answer["published"], *called) if clients}
    roles |= {name: each["role"] for name, each in peers.items() if each["role"] == "plugin" or _is_bound(each)}
    roles |= {name: each["role"] for name, each in peers.items() if name in roles}
    patterns = {name: [entry["pattern"] for entry in each["subscribes"]] for name, each in peers.items()}
    raw = [(each["name"], each["subject"]) for each in answer["published"] if each["name"] in roles]
    names = _shown_as([subject for _, subject in raw], sorted({each for found in patterns.values() for each in found}))
    published = sorted({(name, names[subject]) for name, subject in raw})
    delivered = sorted(_deliveries(dict(names), patterns))
    calls = sorted((each["name"], each["service"]) for each in called if each["name"] in roles)
    served = sorted((service, name) for name, each in peers.items() for service in each["serves"])
    return Graph(roles, published, delivered, calls, served, answer["observed_secs"], answer["missed"])


def _is_bound(peer: dict[str, Any]) -> bool:
    return bool(peer["subscribes"] or peer["serves"])


def text(graph: Graph) -> Iterator[str]:
    """As two lists, for a person."""
    if not graph.roles:
        yield "nobody is on the bus"
        return
    yield from _list("EVENTS", graph.published, graph.delivered, "nobody seen publishing", "nobody listens")
    yield from _list("SERVICES", graph.called, graph.served, "nobody seen calling", "nobody serves it")
    idle = graph.roles.keys() - {name for edges in (graph.published, graph.called) for name, _ in edges}
    idle -= {name for edges in (graph.delivered, graph.served) for _, name in edges}
    if idle:
        yield f"neither: {', '.join(sorted(idle))}"
        yield ""
    missed = f"; {graph.missed} events or calls of further subjects and services are left out" if graph.missed else ""
    yield f"publishers and callers as seen in {span(graph.observed_secs)}{missed}"


def mermaid(graph: Graph) -> Iterator[str]:
    """As a flow chart of Mermaid (mermaid.js.org): peers are boxes, subjects round, services hexagons."""
    ids = _Ids()
    yield "flowchart LR"
    for name in sorted(graph.roles):
        yield f'    {ids.of("peer", name)}["{_mermaid(name)}"]'
    for subject in _middle(graph.published, graph.delivered):
        yield f'    {ids.of("subject", subject)}(["{_mermaid(subject)}"])'
    for service in _middle(graph.called, graph.served):
        yield f'    {ids.of("service", service)}{{{{"{_mermaid(service)}"}}}}'
    for kind, left, right in _arrows(graph):
        arrow = "-->" if kind == "subject" else "-.->"
        yield f"    {ids.of(*left)} {arrow} {ids.of(*right)}"


def dot(graph: Graph) -> Iterator[str]:
    """As a directed graph of Graphviz (graphviz.org): peers are boxes, subjects ellipses, services hexagons."""
    ids = _Ids()
    yield "digraph mesh {"
    yield "    rankdir=LR;"
    for name, role in sorted(graph.roles.items()):
        style = "" if role == "plugin" else ", style=dashed"
        yield f"    {ids.of('peer', name)} [label={_quoted(name)}, shape=box{style}];"
    for subject in _middle(graph.published, graph.delivered):
        yield f"    {ids.of('subject', subject)} [label={_quoted(subject)}, shape=ellipse];"
    for service in _middle(graph.called, graph.served):
        yield f"    {ids.of('service', service)} [label={_quoted(service)}, shape=hexagon];"
    for kind, left, right in _arrows(graph):
        style = "" if kind == "subject" else " [style=dashed]"
        yield f"    {ids.of(*left)} -> {ids.of(*right)}{style};"
    yield "}"


class _Ids:
    """Short names for nodes: those of subjects hold characters that neither language allows in one."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], str] = {}

    def of(self, kind: str, name: str) -> str:
        return self._ids.setdefault((kind, name), f"{kind[0]}{kind[-1]}{len(self._ids)}")


def _arrows(graph: Graph) -> Iterator[tuple[str, tuple[str, str], tuple[str, str]]]:
    for kind, first, second in (
        ("subject", graph.published, graph.delivered),
        ("service", graph.called, graph.served),
    ):
        yield from ((kind, ("peer", name), (kind, what)) for name, what in first)
        yield from ((kind, (kind, what), ("peer", name)) for what, name in second)


def _shown_as(subjects: Iterable[str], patterns: list[str]) -> dict[str, str]:
    """How each subject is shown, and each pattern that covers none: as itself, or as a pattern that stands for many.

    Many are those that differ in one token only and have the same subscriptions.
    """
    alike: defaultdict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    covering = {each: tuple(pattern for pattern in patterns if matches(pattern, each)) for each in set(subjects)}
    for subject, found in covering.items():
        for shape in _shapes(subject):
            alike[shape, found].add(subject)
    shown = {subject: subject for subject in covering}
    for (shape, _), many in sorted(alike.items(), key=lambda each: len(each[1])):
        if len(many) > MOST_ALIKE:
            shown |= dict.fromkeys(many, shape)
    used = {pattern for found in covering.values() for pattern in found}
    return shown | {pattern: pattern for pattern in patterns if pattern not in used}


def _shapes(subject: str) -> Iterator[str]:
    """The subject with each of its tokens in turn left open."""
    tokens = subject.split(".")
    for index in range(len(tokens)):
        yield ".".join([*tokens[:index], "*", *tokens[index + 1 :]])


def _deliveries(names: dict[str, str], patterns: dict[str, list[str]]) -> set[Edge]:
    return {
        (shown, name)
        for subject, shown in names.items()
        for name, found in patterns.items()
        if any(pattern == subject or (not _is_pattern(subject) and matches(pattern, subject)) for pattern in found)
    }


def _is_pattern(text: str) -> bool:
    return any(token in ("*", ">") for token in text.split("."))


def _middle(first: list[Edge], second: list[Edge]) -> list[str]:
    return sorted({what for _, what in first} | {what for what, _ in second})


def _list(title: str, first: list[Edge], second: list[Edge], no_left: str, no_right: str) -> Iterator[str]:
    middle = _middle(first, second)
    if not middle:
        return
    yield title
    width = max(map(len, middle))
    for what in middle:
        left = ", ".join(name for name, target in first if target == what) or f"({no_left})"
        right = ", ".join(name for source, name in second if source == what) or f"({no_right})"
        yield f"  {what.ljust(width)}  {left} → {right}"
    yield ""


def _mermaid(text: str) -> str:
    # Entities, as Mermaid wants them; `>` and `*` are harmless inside quotes, except to some of its renderers.
    return text.replace("#", "#35;").replace('"', "#quot;").replace(">", "#gt;").replace("<", "#lt;")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
