"""Conditions on events, as they are written on the command line."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

HEADERS = "headers."
_GRAMMAR = re.compile(r"([^=!<>~]+?)\s*(!=|>=|<=|=|>|<|~)\s*(.*)", re.DOTALL)
_MISSING = object()


def _contains(value: Any, wanted: Any) -> bool:
    return str(wanted) in (value if isinstance(value, (str, list, dict)) else str(value))


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "~": _contains,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A field, an operator and a value; the field is a path into the data, or `headers.NAME`."""

    field: str
    sign: str
    value: Any
    text: str

    def holds(self, data: Any, headers: Mapping[str, str]) -> bool:
        """Whether an event satisfies it; one without the field, or with a value that cannot be compared, does not."""
        if self.field.startswith(HEADERS):
            found: Any = headers.get(self.field.removeprefix(HEADERS), _MISSING)
            wanted: Any = self.text
        else:
            found, wanted = _find(data, self.field), self.value
            if isinstance(found, str) and self.sign in ("=", "!=", "~"):
                wanted = self.value if isinstance(self.value, str) else self.text  # an id such as "12345" is a text
        if found is _MISSING:
            return self.sign == "!="
        try:
            return bool(_OPERATORS[self.sign](found, wanted))
        except TypeError:
            return False


def parse_condition(text: str) -> Condition:
    """A condition such as `order.total>100`; raises BadParameter for wrong usage."""
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise click.BadParameter(
            f"{text!r} is no condition: write FIELD=VALUE, with one of {' '.join(_OPERATORS)} between them"
        )
    field, sign, value = match.groups()
    try:
        return Condition(field.strip(), sign, json.loads(value), value)
    except json.JSONDecodeError:
        return Condition(field.strip(), sign, value, value)


def _find(data: Any, path: str) -> Any:
    if isinstance(data, Mapping) and path in data:
        return data[path]
    found = data
    for part in path.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return _MISSING
    return found
