"""What is wrong with a configuration, in words that name the setting, the value and the way out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

_EXPECTED = {
    "bool": "true or false",
    "dict": "a section of settings",
    "finite_number": "a number",
    "float": "a number",
    "int": "a whole number",
    "model": "a section of settings",
    "path": "a path in quotes",
    "string": "a text in quotes",
}
_BOUNDS = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}


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


def explain(error: ErrorDetails, known: Iterable[str]) -> str:
    """Says what one finding of pydantic means for the person who wrote the setting.

    Args:
        known: the full names of all settings, for suggestions.
    """
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown setting" + suggest(".".join(map(str, error["loc"])), known)
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        limit = context[bound]
        return f"must be {words} {f'{limit:g}' if isinstance(limit, float) else limit}, got {value!r}"
    if kind == "value_error":
        return str(context["error"])
    return f"expects {_expected(kind, context) or error['msg']}, got {_shown(value)}"


def _expected(kind: str, context: dict[str, Any]) -> str | None:
    if kind == "literal_error":
        return f"one of {context['expected']}"
    if kind == "string_pattern_mismatch":
        return "letters, digits, '.', '_' and '-', at most 64, with a letter or digit at both ends"
    return _EXPECTED.get(kind.removesuffix("_type").removesuffix("_parsing").removesuffix("_from_float"))


def _shown(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def suggest(written: str, known: Iterable[str], spell: Callable[[str], str] = str) -> str:
    """The end of a sentence that offers what was probably meant, or nothing.

    Args:
        known: the full names of all settings; sections are offered too.
        spell: turns such a name into the form that is offered.
    """
    names = dict.fromkeys(name for setting in known for name in (setting, setting.rpartition(".")[0]))
    last = written.rpartition(".")[2]
    near = [name for name in names if name.rpartition(".")[2] == last]
    near = near or get_close_matches(written, names, n=1, cutoff=0.75)
    return f"; did you mean {' or '.join(map(spell, near))}?" if near else ""
