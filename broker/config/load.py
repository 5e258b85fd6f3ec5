"""Brings the sources together: defaults, the file, the environment, options of the command line."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from broker.config import files
from broker.config.build import build
from broker.config.overlay import Override, overrides
from broker.config.problems import ConfigError, Problem
from broker.config.schema import (
    BrokerSection,
    BusSection,
    DatabaseSection,
    PluginManagerSection,
    Sections,
    ShutdownSection,
    defaults,
    settings,
)

DEFAULT = "default"


@dataclass(frozen=True)
class Setting:
    """A setting in force: its value as text, passwords masked, and where it was said."""

    name: str
    value: str
    source: str
    line: int | None


@dataclass(frozen=True)
class Origin:
    """Where a value was said; `line` counts from 1 and is known for files only."""

    source: str
    line: int | None = None


@dataclass(frozen=True)
class Config:
    """The configuration of one broker. It is built once and does not change."""

    home: Path
    file: Path | None
    broker: BrokerSection
    bus: BusSection
    plugin_manager: PluginManagerSection
    database: DatabaseSection
    shutdown: ShutdownSection
    warnings: tuple[Problem, ...]
    origins: Mapping[str, Origin]

    def describe(self) -> list[Setting]:
        """Every setting in force, in the order of the schema."""
        return [self._setting(name) for name, _ in settings()]

    def _setting(self, name: str) -> Setting:
        value: Any = self
        for part in name.split("."):
            value = getattr(value, part)
        origin = self.origins.get(name, Origin(DEFAULT))
        return Setting(name, _shown(value), origin.source, origin.line)


def load(home: Path, file: Path | None, environ: Mapping[str, str], options: Mapping[str, str] | None = None) -> Config:
    """Builds the configuration of the broker that lives in `home`.

    Args:
        file: a TOML or YAML file; without one `broker.toml` or `broker.yaml` of the home, if there is any.
        environ: `BROKER_SECTION_NAME=value` overrides the file.
        options: texts by full name of the setting, from the command line; they override everything.

    Raises:
        ConfigError: with every problem of every source.
    """
    home = home.expanduser().absolute()
    draft = _Draft(defaults(home))
    document, problems = _document(home, file)
    draft.take_file(document)
    said, wrong = overrides(environ, options or {})
    draft.take(said)
    sections, findings = draft.check(home)
    if sections is None or problems or wrong:
        raise ConfigError([*problems, *wrong, *findings])
    return Config(
        home=home,
        file=document.path if document else None,
        broker=sections.broker,
        bus=sections.bus,
        plugin_manager=sections.plugin_manager,
        database=sections.database,
        shutdown=sections.shutdown,
        warnings=tuple(_warnings(sections, draft.origins)),
        origins=MappingProxyType(draft.origins),
    )


class _Draft:
    """The table of settings while it is put together, and where each value came from."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.origins: dict[str, Origin] = {}
        self._table = table

    def take_file(self, document: files.Document | None) -> None:
        if document is None:
            return
        _merge(self._table, document.data)
        for name in _names(document.data):
            self.origins[name] = Origin(str(document.path), document.line(name))

    def take(self, said: Iterable[Override]) -> None:
        for override in said:
            section, _, last = override.name.rpartition(".")
            content: dict[str, Any] = {last: override.value}
            for part in reversed(section.split(".")):
                content = {part: content}
            _merge(self._table, content)
            self.origins[override.name] = Origin(override.source)

    def check(self, home: Path) -> tuple[Sections | None, list[Problem]]:
        sections, findings = build(self._table, home)
        found = [self._problem(name, text) for name, text in findings]
        return sections, sorted(found, key=lambda problem: problem.line or 0)

    def _problem(self, name: str, text: str) -> Problem:
        origin = self.origins.get(name, Origin(DEFAULT))
        return Problem(name, text, origin.source, origin.line)


def _document(home: Path, file: Path | None) -> tuple[files.Document | None, list[Problem]]:
    try:
        path = file or files.find(home)
        return (files.read(path) if path else None), []
    except ConfigError as error:
        return None, error.problems


def _merge(table: dict[str, Any], content: Mapping[str, Any]) -> None:
    """Lays content over the table. A section with nothing in it, null in YAML, changes nothing."""
    for name, value in content.items():
        inner = table.get(name)
        if isinstance(value, dict) and isinstance(inner, dict):
            _merge(inner, value)
        elif value is not None or not isinstance(inner, dict):
            table[name] = value


def _names(content: Mapping[str, Any], prefix: str = "", depth: int = files.DEPTH) -> Iterator[str]:
    """Full names of the sections and settings that a file mentions, known or not."""
    for name, value in content.items():
        yield f"{prefix}{name}"
        if depth > 1 and isinstance(value, dict):
            yield from _names(value, f"{prefix}{name}.", depth - 1)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _warnings(sections: Sections, origins: Mapping[str, Origin]) -> Iterator[Problem]:
    step, total = sections.plugin_manager.timeout, sections.shutdown.timeout_secs
    if step > total:
        inner, outer = "plugin_manager.timeout", "shutdown.timeout_secs"
        origin = origins.get(inner) or origins[outer]
        text = f"{step:g} s for one step of a plugin outlast {outer} = {total:g} s, which then cuts it short"
        yield Problem(inner, text, origin.source, origin.line)
    watchdog = sections.shutdown.watchdog
    if watchdog.enabled and watchdog.interval_secs > watchdog.timeout_secs / 2:
        inner, outer = "shutdown.watchdog.interval_secs", "shutdown.watchdog.timeout_secs"
        origin = origins.get(inner) or origins.get(outer) or Origin(DEFAULT)
        text = f"{watchdog.interval_secs:g} s is more than half of {outer}: half of it is used"
        yield Problem(inner, text, origin.source, origin.line)
