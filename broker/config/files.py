"""Reads a configuration file into a table, and remembers the line of every name in it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from broker.config.problems import ConfigError, Problem

NAMES = ("broker.toml", "broker.yaml", "broker.yml")

# No setting is nested deeper; a YAML alias may point at its own ancestor, so somewhere the walk must end.
DEPTH = 3

# PyYAML lets these through when an explicit tag does not fit its text, as in `!!int ""` or `!!bool maybe`.
_FOREIGN = (ValueError, LookupError, AttributeError, TypeError, RecursionError)

_TOML_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_TOML_KEY = re.compile(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=")


@dataclass(frozen=True)
class Document:
    """What a file says. `lines` has the line of sections and settings by full name."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def line(self, name: str) -> int | None:
        """The line of a name, or of the nearest thing around it: an inline table tells no lines inside."""
        while name not in self.lines and name:
            name = name.rpartition(".")[0]
        return self.lines.get(name)


def find(home: Path) -> Path | None:
    """The configuration file in the home, if there is one; raises ConfigError when there are several."""
    found = [home / name for name in NAMES if (home / name).exists()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ConfigError([Problem("", f"there are {names}: keep one, or name it with --config", str(home))])
    return found[0] if found else None


def read(path: Path) -> Document:
    """Reads a TOML or YAML file; raises ConfigError for one that cannot be read or is not in its format."""
    parsers = {".toml": _parse_toml, ".yaml": _parse_yaml, ".yml": _parse_yaml}
    parse = parsers.get(path.suffix.lower())
    if not path.exists():
        raise _unusable(path, "there is no such file")
    if parse is None:
        raise _unusable(path, "the format shows in the name: call it .toml, .yaml or .yml")
    try:
        return parse(path, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _unusable(path, f"is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None


def _unusable(path: Path, text: str, line: int | None = None) -> ConfigError:
    return ConfigError([Problem("", text, str(path), line)])


def _parse_toml(path: Path, text: str) -> Document:
    # Not at the top: many brokers have no such file.
    import tomllib

    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # Only Python 3.14 has the position as an attribute.
        place = re.search(r"\(at line (\d+), ", str(error))
        raise _unusable(path, f"is not TOML: {error}", int(place[1]) if place else None) from None
    return Document(path, data, dict(_toml_lines(text)))


def _toml_lines(text: str) -> Iterator[tuple[str, int]]:
    """Finds names by their look, since tomllib tells no lines; good enough to point a person at the place."""
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TOML_HEADER.match(line):
            section = _toml_name(header[1])
            yield section, number
        elif key := _TOML_KEY.match(line):
            yield f"{section}.{_toml_name(key[1])}".removeprefix("."), number


def _toml_name(text: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in text.split("."))


def _parse_yaml(path: Path, text: str) -> Document:
    try:
        root, data = _yaml_content(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _unusable(path, f"is not YAML: {error.problem}", line) from None
    except (yaml.YAMLError, *_FOREIGN) as error:
        raise _unusable(path, f"is not YAML: {error}") from None
    if root is None or data is None:
        return Document(path)
    if not isinstance(root, yaml.MappingNode):
        raise _unusable(path, f"must hold sections of settings, not {data!r}", root.start_mark.line + 1)
    names = list(_yaml_lines(root))
    _refuse_doubles(path, names)
    return Document(path, _with_text_keys(data), dict(names))


def _yaml_content(text: str) -> tuple[yaml.Node | None, Any]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        return root, loader.construct_document(root) if root else None
    finally:
        loader.dispose()


def _yaml_lines(node: yaml.MappingNode, prefix: str = "", depth: int = DEPTH) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        yield name, key.start_mark.line + 1
        if depth > 1 and isinstance(value, yaml.MappingNode):
            yield from _yaml_lines(value, f"{name}.", depth - 1)


def _refuse_doubles(path: Path, names: list[tuple[str, int]]) -> None:
    """PyYAML takes the last of two equal keys without a word; TOML forbids them, and so do we."""
    first: dict[str, int] = {}
    problems = []
    for name, line in names:
        if name in first:
            problems.append(Problem(name, f"is set twice, first in line {first[name]}", str(path), line))
        first.setdefault(name, line)
    if problems:
        raise ConfigError(problems)


def _with_text_keys(value: Any, depth: int = DEPTH) -> Any:
    if depth == 0 or not isinstance(value, dict):
        return value
    return {str(key): _with_text_keys(inner, depth - 1) for key, inner in value.items()}
