"""Whatever was filed and removed, the tree finds exactly what the reference finds."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.subjects import SubjectTree
from plugin_sdk.wire.subjects import check_pattern, check_subject, matches
from tests.core_driver import Mesh

TOKENS = ("a", "b", "c")
subjects = st.lists(st.sampled_from((*TOKENS, "$a")), min_size=1, max_size=5).map(".".join)
patterns = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(st.sampled_from((*TOKENS, "$a", "*")), min_size=1, max_size=4),
    st.sampled_from(((), (">",))),
) | st.just(">")


def covering(filed: Iterable[tuple[str, int]], subject: str) -> list[tuple[str, int]]:
    return sorted((pattern, value) for pattern, value in filed if matches(pattern, subject))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), patterns, st.integers(0, 2))), st.lists(subjects, min_size=1, max_size=5))
def test_the_tree_agrees_with_the_reference(steps: list[tuple[bool, str, int]], asked: list[str]) -> None:
    tree: SubjectTree[tuple[str, int]] = SubjectTree()
    filed: set[tuple[str, int]] = set()
    for insert, pattern, value in steps:
        entry = (check_pattern(pattern), value)
        if insert:
            tree.insert(pattern, entry)
            filed.add(entry)
        else:
            tree.remove(pattern, entry)
            filed.discard(entry)
        for subject in asked:
            assert sorted(tree.match(check_subject(subject))) == covering(filed, subject)
    for pattern, value in filed:
        tree.remove(pattern, (pattern, value))
    assert tree._root.is_empty()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(patterns, st.integers(0, 2)), max_size=8), st.lists(subjects, max_size=8))
def test_through_the_router_an_event_reaches_exactly_the_subscriptions_that_cover_it(
    wanted: list[tuple[str, int]], published: list[str]
) -> None:
    mesh = Mesh()
    peers, broker = [mesh.client() for _ in range(3)], mesh.local()
    subscriptions = [(peer, peers[peer].subscribe(pattern), pattern) for pattern, peer in wanted]
    for subject in published:
        broker.publish(subject)
        got = sorted((peer, each) for peer in range(3) for ids, _, _ in peers[peer].events() for each in ids)
        assert got == sorted((peer, each) for peer, each, pattern in subscriptions if matches(pattern, subject))
