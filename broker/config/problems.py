"""What is wrong with a configuration, in words that name the setting, the value and the way out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from msgspec import Meta

from broker.config.values import DatabaseUrl, annotations, bare

_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    Path: "a path in quotes",
    DatabaseUrl: "a text in quotes",
}


@dataclass(frozen=True)
class Problem:
    """One thing to mend. `source` is a file, an environment variable or an option; `line` counts from 1."""

    setting: str
    text: str
    source: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.setting}: {self.text}" if self.setting else f"{place}: {self.text}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has every reason found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


def mismatch(kind: Any, value: Any) -> str:
    """Says why a value is not of its kind, for the person who wrote it."""
    notes = [note for note in annotations(kind) if isinstance(note, Meta)]
    if type(value) in (int, bare(kind)):
        for note in notes:
            if note.ge is not None and value < note.ge:
                return f"must be at least {note.ge}, got {value!r}"
            if note.le is not None and value > note.le:
                return f"must be at most {note.le}, got {value!r}"
    described = next((note.description for note in notes if note.description), None)
    # A database URL is a secret in a list or a table, too.
    return expects(described or _expected(bare(kind)), "***" if bare(kind) is DatabaseUrl else value)


def expects(expected: str, value: object) -> str:
    """Says what was expected in the place of a value."""
    shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return f"expects {expected}, got {shown}"


def _expected(kind: Any) -> str:
    if get_origin(kind) is Literal:
        *words, last = map(repr, get_args(kind))
        return f"one of {', '.join(words)} or {last}"
    return _EXPECTED[kind]


def suggest(written: str, known: Iterable[str], spell: Callable[[str], str] = str) -> str:
    """The end of a sentence that offers what was probably meant, or nothing.

    Args:
        known: the full names that may be offered.
        spell: turns such a name into the form that is offered.
    """
    names = [name for name in known if spell(name) != spell(written)]
    section, _, last = written.rpartition(".")
    beside = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == section}
    # Whoever wrote it into a section most probably meant that section.
    near = [name for end, name in beside.items() if f"{end}_".startswith(f"{last}_") or last.startswith(f"{end}_")]
    near = near or [beside[end] for end in get_close_matches(last, beside, n=1, cutoff=0.7)]
    near = near or [name for name in names if name.rpartition(".")[2] == last]
    near = near or get_close_matches(written, names, n=1, cutoff=0.75)
    return f"; did you mean {' or '.join(map(spell, near))}?" if near else ""
