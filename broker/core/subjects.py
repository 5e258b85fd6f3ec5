"""A tree of subscription patterns that finds those covering a subject.

The cost of a look-up grows with the tokens of the subject and the wildcards along its path, not with the number of
unrelated subscriptions.
"""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class _Node(Generic[V]):
    __slots__ = ("children", "here", "tail")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.here: dict[V, None] = {}
        self.tail: dict[V, None] = {}

    def is_empty(self) -> bool:
        return not (self.children or self.here or self.tail)


class SubjectTree(Generic[V]):
    """Values filed under patterns; both have been checked against the grammar before."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()

    def insert(self, pattern: str, value: V) -> None:
        """File `value` under `pattern`; filing it twice changes nothing."""
        tokens, open_ended = _split(pattern)
        node = self._root
        for token in tokens:
            node = node.children.setdefault(token, _Node())
        (node.tail if open_ended else node.here)[value] = None

    def remove(self, pattern: str, value: V) -> None:
        """Take `value` from `pattern` again, and prune what is empty then."""
        tokens, open_ended = _split(pattern)
        path = [self._root]
        for token in tokens:
            child = path[-1].children.get(token)
            if child is None:
                return
            path.append(child)
        (path[-1].tail if open_ended else path[-1].here).pop(value, None)
        for token, parent, child in zip(reversed(tokens), reversed(path[:-1]), reversed(path[1:]), strict=True):
            if not child.is_empty():
                break
            del parent.children[token]

    def match(self, subject: str) -> list[V]:
        """Every value whose pattern covers `subject`, in a fixed order."""
        tokens = subject.split(".")
        found: list[V] = []
        # Wildcards do not reach the broker's own subjects, or `>` would show every log line to everybody.
        level = [self._root]
        for depth, token in enumerate(tokens):
            following: list[_Node[V]] = []
            reserved = depth == 0 and token.startswith("$")
            for node in level:
                if not reserved:
                    found.extend(node.tail)
                    if star := node.children.get("*"):
                        following.append(star)
                if child := node.children.get(token):
                    following.append(child)
            level = following
        for node in level:
            found.extend(node.here)
        return found


def _split(pattern: str) -> tuple[list[str], bool]:
    tokens = pattern.split(".")
    if tokens[-1] == ">":
        return tokens[:-1], True
    return tokens, False
