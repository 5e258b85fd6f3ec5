"""The tree of patterns finds what the reference finds, at a cost that unrelated patterns do not change."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from broker.core.subjects import SubjectTree
from plugin_sdk.wire.subjects import matches
from tests.core_driver import Mesh

PATTERNS = [">", "*", "a", "a.>", "a.*", "*.b", "a.b", "a.*.c", "a.b.>", "*.*.*", "*.>", "$x.>", "$x.*", "$x.b", "b.b"]
SUBJECTS = ["a", "b", "a.b", "b.b", "a.b.c", "a.x.c", "x.y.z", "a.b.c.d", "$x.b", "$x.b.c", "$x", "a.$x"]


def tree_of(patterns: list[str]) -> SubjectTree[str]:
    tree: SubjectTree[str] = SubjectTree()
    for pattern in patterns:
        tree.insert(pattern, pattern)
    return tree


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_finds_every_pattern_that_covers_it_once(subject: str) -> None:
    found = tree_of(PATTERNS).match(subject)
    assert sorted(found) == sorted(pattern for pattern in PATTERNS if matches(pattern, subject))


def test_values_under_one_pattern_come_in_the_order_in_which_they_were_filed() -> None:
    tree: SubjectTree[int] = SubjectTree()
    for value in (3, 1, 2, 1):
        tree.insert("a.*", value)
    assert tree.match("a.b") == [3, 1, 2]


def test_what_was_removed_is_not_found_and_the_rest_is() -> None:
    tree = tree_of(["a.b", "a.b.c", "a.>", "a.*"])
    tree.remove("a.b", "a.b")
    tree.remove("a.>", "a.>")
    assert tree.match("a.b") == ["a.*"]
    assert tree.match("a.b.c") == ["a.b.c"]


def test_removing_what_is_not_there_changes_nothing() -> None:
    tree = tree_of(["a.b"])
    for pattern in ("x", "a", "a.b.c", "a.b.>", "a.*", ">"):
        tree.remove(pattern, pattern)
    tree.remove("a.b", "another value")
    assert tree.match("a.b") == ["a.b"]


def test_a_tree_from_which_all_was_removed_is_as_small_as_a_new_one() -> None:
    tree = tree_of(PATTERNS)
    for pattern in PATTERNS:
        tree.remove(pattern, pattern)
    assert tree._root.is_empty()


def steps_of(action: Callable[[], None]) -> int:
    """How many lines the action runs and how many functions it calls: a cost that does not depend on the machine."""
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        nonlocal steps
        steps += event in ("line", "call", "c_call")
        return count

    tracer = sys.gettrace()
    gc.disable()  # what it calls back would be counted, and when it runs depends on everything before
    sys.setprofile(count)
    sys.settrace(count)
    try:
        action()
    finally:
        sys.settrace(tracer)
        sys.setprofile(None)
        gc.enable()
    return steps


def routing_cost(unrelated: int, *, cached: bool) -> int:
    """What it costs to route one event to two readers while so many other subscriptions are in force."""
    mesh = Mesh()
    crowd, readers, publisher = mesh.client(), [mesh.client(), mesh.client()], mesh.client()
    for reader in readers:
        reader.subscribe("user.*.login")
    shapes = ("other.{}.login", "user.{}.logout", "user.{}", "user.{}.>", "crowd.{}.*.x.>")
    for number in range(unrelated):
        crowd.subscribe(shapes[number % len(shapes)].format(f"n{number}"))
    publisher.publish("user.ada.login")
    subject = "user.ada.login" if cached else "user.bob.login"
    cost = steps_of(lambda: publisher.publish(subject))
    assert [len(reader.events()) for reader in readers] == [2, 2]
    return cost


@pytest.mark.parametrize("cached", [True, False])
def test_routing_costs_the_same_beside_ten_thousand_unrelated_subscriptions(cached: bool) -> None:
    assert routing_cost(10_000, cached=cached) == routing_cost(10, cached=cached)


def test_a_route_that_is_remembered_costs_less_than_one_that_is_found() -> None:
    assert routing_cost(10, cached=True) < routing_cost(10, cached=False)


def test_subscribing_costs_the_same_beside_ten_thousand_unrelated_subscriptions() -> None:
    def cost(unrelated: int) -> int:
        tree: SubjectTree[int] = SubjectTree()
        for number in range(unrelated):
            tree.insert(f"other.{number}.>", number)
        return steps_of(lambda: tree.insert("a.*.c", 0)) + steps_of(lambda: tree.remove("a.*.c", 0))

    assert cost(10_000) == cost(10)
