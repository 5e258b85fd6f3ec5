"""`broker graph`: the same mesh as text, for Mermaid and for Graphviz."""

import re
from typing import Any

from broker.cli.diagram import dot, mermaid, read_graph, text


def peer(name: str, role: str = "plugin", *patterns: str, serves: tuple[str, ...] = ()) -> dict[str, Any]:
    subscribes = [{"pattern": pattern, "group": None} for pattern in patterns]
    return {"name": name, "role": role, "sessions": 1, "subscribes": subscribes, "serves": list(serves)}


SHOP = {
    "observed_secs": 5.0,
    "missed": 0,
    "peers": [
        peer("hello", "plugin", "user.*"),
        peer("idle"),
        peer("users", serves=("users.get", "users.list")),
        peer("web", "client", "never.sent"),
        peer("cli", "client"),
    ],
    "published": [{"name": "web", "subject": "user.login", "count": 3}],
    "called": [
        {"name": "hello", "service": "users.get", "count": 2},
        {"name": "cli", "service": "$broker.graph", "count": 2},
        {"name": "left", "service": "gone.away", "count": 1},
    ],
}


def shop(**changes: Any) -> dict[str, Any]:
    return {**SHOP, **changes}


def test_text_shows_who_and_who_is_missing() -> None:
    shown = "\n".join(text(read_graph(shop(), clients=True)))
    assert re.search(r"user\.login +web → hello$", shown, re.MULTILINE)
    assert re.search(r"never\.sent +\(nobody seen publishing\) → web$", shown, re.MULTILINE)
    assert re.search(r"users\.get +hello → users$", shown, re.MULTILINE)
    assert re.search(r"users\.list +\(nobody seen calling\) → users$", shown, re.MULTILINE)
    assert re.search(r"gone\.away +left → \(nobody serves it\)$", shown, re.MULTILINE)
    assert "neither: idle\n" in shown
    assert "as seen in 5 s" in shown
    assert "$broker" not in shown


def test_without_clients_only_plugins_are_left() -> None:
    graph = read_graph(shop(), clients=False)
    assert graph.roles.keys() == {"hello", "idle", "users"}
    assert graph.published == []
    assert ("user.*", "hello") in graph.delivered


def test_subjects_that_differ_in_one_token_are_shown_as_one() -> None:
    many = [{"name": "web", "subject": f"user.{number}", "count": 1} for number in range(9)]
    few = [{"name": "web", "subject": f"other.{number}.x", "count": 1} for number in range(8)]
    graph = read_graph(shop(published=many + few), clients=True)
    assert graph.published == sorted([("web", "user.*"), *(("web", each["subject"]) for each in few)])
    assert ("user.*", "hello") in graph.delivered


def test_subjects_that_have_nothing_in_common_stay_apart_under_one_wide_subscription() -> None:
    peers = [peer("stdout", "plugin", ">")]
    published = [{"name": "web", "subject": f"a{number}.b{number}", "count": 1} for number in range(20)]
    graph = read_graph(shop(peers=peers, published=published, called=[]), clients=True)
    assert len(graph.delivered) == len(graph.published) == 20


def test_mermaid_names_every_node_once_and_arrows_lead_between_them() -> None:
    lines = list(mermaid(read_graph(shop(), clients=True)))
    assert lines[0] == "flowchart LR"
    nodes = [match[1] for line in lines[1:] if (match := re.fullmatch(r"    (\w+)(?:\[|\(|\{).*", line))]
    arrows = [match.groups() for line in lines[1:] if (match := re.fullmatch(r"    (\w+) (?:-->|-\.->) (\w+)", line))]
    assert len(nodes) == len(set(nodes))
    assert len(nodes) + len(arrows) == len(lines) - 1
    assert {each for arrow in arrows for each in arrow} <= set(nodes)
    assert any('"user.login"' in line for line in lines)


def test_labels_cannot_break_out_of_their_quotes() -> None:
    nasty = 'a"];x#y'
    published = [{"name": "web", "subject": nasty, "count": 1}]
    graph = read_graph(shop(published=published), clients=True)
    assert '(["a#quot;];x#35;y"])' in "\n".join(mermaid(graph))
    assert 'label="a\\"];x#y"' in "\n".join(dot(graph))


def test_dot_is_one_digraph_with_a_line_each() -> None:
    lines = list(dot(read_graph(shop(), clients=True)))
    assert (lines[0], lines[-1]) == ("digraph mesh {", "}")
    assert all(line.endswith(";") for line in lines[1:-1])
    assert any('label="web", shape=box, style=dashed' in line for line in lines)


def test_an_empty_mesh_says_so() -> None:
    assert list(text(read_graph(shop(peers=[], published=[], called=[]), clients=True))) == ["nobody is on the bus"]
