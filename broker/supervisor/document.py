"""Reads a YAML file of a plugin and remembers the line of everything in it."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import yaml

# No description of a plugin comes near; a bigger file is a mistake and would only cost memory.
MAX_BYTES = 1 << 20

# Aliases of aliases of aliases … let a kilobyte stand for billions of things, and each would be looked at.
MAX_THINGS = 100_000

# The C parser builds what is nested by calling itself, without a limit: a file of brackets would end the process.
MAX_NESTING = 100

# What is further down has the line of what is around it.
_DEPTH = 12

Place = tuple[str | int, ...]

# The C parser is ten times as fast, but PyYAML can be built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BadDocument(Exception):
    """A file that cannot be used; its text names the file, the line where one is known, and the way out."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. `lines` holds the line of each key and list item by its place, counted from 1."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Place, int] = field(default_factory=dict)

    def at(self, place: Place) -> str:
        """The file, with the line of the place or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.path}:{self.lines[place]}" if place else str(self.path)


def read_document(path: Path) -> Document:
    """Reads a file that holds a mapping, or nothing.

    Raises:
        BadDocument: it cannot be read, is too large, or is not a YAML mapping.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadDocument(f"{path}: is no file that can be read: put a text file there")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadDocument(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise BadDocument(f"{path}: is larger than {MAX_BYTES} bytes; keep data in files of the plugin's own")
    root, data = _parse(path, content)
    if root is None:
        return Document(path)
    if not isinstance(root, yaml.MappingNode) or not all(isinstance(key, str) for key in data):
        raise BadDocument(f"{path}:{root.start_mark.line + 1}: expects lines of the form 'name: value'")
    return Document(path, data, _lines(path, root))


def _open_at_once(path: str, flags: int) -> int:
    # A pipe would be waited for until somebody writes into it, and with it every look at the plugin folder.
    return os.open(path, flags | os.O_NONBLOCK)


def _parse(path: Path, content: bytes) -> tuple[yaml.Node | None, Any]:
    try:
        _check_nesting(path, content)
        loader = _Loader(content)
        try:
            root = loader.get_single_node()
            if root and _count(root, {}) > MAX_THINGS:
                text = f"its aliases stand for more than {MAX_THINGS} things; write out what is meant"
                raise BadDocument(f"{path}: {text}")
            return root, loader.construct_document(root) if root else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadDocument(f"{path}{line}: is not YAML: {error.problem}") from None
    # PyYAML trips over values that do not fit their explicit tag: IndexError of `!!float`, KeyError of `!!bool x` …
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise BadDocument(f"{path}: is not YAML: {reason}") from None


def _check_nesting(path: Path, content: bytes) -> None:
    depth = 0
    for event in yaml.parse(content, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_NESTING:
            where = f"{path}:{event.start_mark.line + 1}" if event.start_mark else str(path)
            raise BadDocument(f"{where}: is nested more than {MAX_NESTING} levels deep; keep it flatter")


def _count(node: yaml.Node, known: dict[yaml.Node, float]) -> float:
    """How many things a node stands for, those behind an alias each time; endlessly many when it contains itself."""
    if node not in known:
        known[node] = inf
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[node] = 1 + sum(_count(each, known) for each in inner)
    return known[node]


def _lines(path: Path, root: yaml.MappingNode) -> dict[Place, int]:
    """PyYAML takes the last of two equal keys without a word, so they are refused here."""
    lines: dict[Place, int] = {}
    for place, line in _walk(root, (), _DEPTH):
        if place in lines:
            name = ".".join(map(str, place))
            raise BadDocument(f"{path}:{line}: {name}: is set twice, first in line {lines[place]}; keep one")
        lines[place] = line
    return lines


def _walk(node: yaml.Node, around: Place, depth: int) -> Iterator[tuple[Place, int]]:
    if depth == 0:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*around, str(key.value))
            yield place, key.start_mark.line + 1
            yield from _walk(value, place, depth - 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*around, index), value.start_mark.line + 1
            yield from _walk(value, (*around, index), depth - 1)
