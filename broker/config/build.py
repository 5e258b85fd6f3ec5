"""Makes sections of a table of settings.

Setting by setting, because msgspec stops at the first value that does not fit, and people want to hear of all.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

import msgspec

from broker.config.problems import expects, mismatch, suggest
from broker.config.schema import Section, Sections, is_section, settings
from broker.config.values import annotations, bare, made

_Kind = TypeVar("_Kind", bound=Section)


def build(table: dict[str, Any], home: Path) -> tuple[Sections | None, list[tuple[str, str]]]:
    """Checks a table against the schema.

    Args:
        table: settings nested like the content of a file, with `defaults()` below them.
        home: where relative paths start.

    Returns:
        The sections, None if there are problems, and these: full name of the setting and text.
    """
    builder = _Builder(home)
    return builder.section(Sections, table), builder.problems


class _Builder:
    def __init__(self, home: Path) -> None:
        self.problems: list[tuple[str, str]] = []
        self._home = home

    def section(self, kind: type[_Kind], table: dict[str, Any], prefix: str = "") -> _Kind | None:
        """Builds a section; None when there are problems, there or before."""
        kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
        content = {name: self._entry(kinds.get(name), value, f"{prefix}{name}") for name, value in table.items()}
        return None if self.problems else kind(**content)

    def _entry(self, kind: Any, value: Any, name: str) -> object:
        try:
            if kind is None:
                raise ValueError("unknown setting" + (suggest(name, _names()) or _offer(name)))
            if not is_section(kind):
                return _setting(kind, value, self._home)
            if isinstance(value, dict):
                return self.section(kind, value, f"{name}.")
            raise ValueError(expects("a section of settings", value))
        except ValueError as error:
            self.problems.append((name, str(error)))
        return None


def _names() -> list[str]:
    """All settings and sections, by full name."""
    names = [name for name, _ in settings()]
    return list(dict.fromkeys(each for name in names for each in (name.rpartition(".")[0], name)))


def _offer(name: str) -> str:
    """What there is beside a name that nothing is similar to."""
    section = name.rpartition(".")[0]
    beside = [each.rpartition(".")[2] for each in _names() if each.rpartition(".")[0] == section]
    return f"; there are {', '.join(beside)}" + (f" in {section}" if section else "")


def _setting(kind: Any, value: Any, home: Path) -> object:
    if get_origin(bare(kind)) is Literal and isinstance(value, str):
        value = value.lower()
    try:
        value = msgspec.convert(value, kind, dec_hook=made)
    except msgspec.ValidationError:
        raise ValueError(mismatch(kind, value)) from None
    for step in filter(callable, annotations(kind)):
        value = step(value, home)
    return value
