"""Reading the configuration anew: what has changed, what of it takes effect at once, and a report (SHD-1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

from broker.config import Config, ConfigError
from broker.supervisor.document import BadDocument
from broker.supervisor.errors import SupervisorError
from broker.supervisor.reload import APPLIED, FAILED, NEEDS_RESTART, UNCHANGED, Outcome
from broker.telemetry.logs import set_up_logging

log = logging.getLogger("broker.config")


@dataclass(frozen=True, slots=True)
class Item:
    """One setting, or one plugin, and what became of it."""

    name: str
    result: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a reload did; with `problems` it did nothing, and the configuration is what it was."""

    items: Sequence[Item] = ()
    problems: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    def tell(self) -> None:
        """Write into the log what has changed, what needs a restart and what failed; the others are only counted."""
        for problem in self.problems:
            log.error("configuration not reloaded, the old one is kept: %s", problem)
        for warning in self.warnings:
            log.warning("%s", warning)
        changed = [item for item in self.items if item.result != UNCHANGED]
        for item in changed:
            level = logging.ERROR if item.result == FAILED else logging.INFO
            log.log(level, "%s: %s%s", item.name, item.result, f" ({item.text})" if item.text else "")
        if not self.problems:
            log.info("configuration reloaded, %d items unchanged", len(self.items) - len(changed))


def live_settings(
    set_pace: Callable[[int, float], None],
    time_shutdown: Callable[[Config], None],
    grant: Callable[[Config], None],
) -> dict[str, Callable[[Config], None]]:
    """What makes each setting that can take effect at once do so, by its full name.

    Args:
        set_pace: given how many plugins may start at the same time, and the seconds for each step.
        time_shutdown: given a configuration whose times for the shutdown hold from now on.
        grant: given a configuration that says what plugins may do that register from now on.
    """

    def log_as(config: Config) -> None:
        set_up_logging(config.broker.log_level, config.broker.log_format)

    def start_as(config: Config) -> None:
        set_pace(config.plugin_manager.max_concurrency, config.plugin_manager.timeout)

    return {
        **dict.fromkeys(("broker.log_level", "broker.log_format"), log_as),
        **dict.fromkeys(("plugin_manager.max_concurrency", "plugin_manager.timeout"), start_as),
        "plugin_manager.permissions": grant,
        **dict.fromkeys(
            ("shutdown.timeout_secs", "shutdown.force_quit", "shutdown.force_delay_secs", "shutdown.sighup"),
            time_shutdown,
        ),
    }


class Reloading:
    """The configuration in force, and how it becomes another one.

    Args:
        config: in force now.
        read: reads it anew; raises ConfigError.
        live: makes a setting, by its full name, take effect at once; settings without one need a restart.
        grants: reads the operator's grants anew and tells whether they have changed; raises BadDocument.
        plugins: makes the plugins what their folders say.
    """

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        live: Mapping[str, Callable[[Config], None]],
        grants: Callable[[], Awaitable[bool]],
        plugins: Callable[[], Awaitable[Sequence[Outcome]]],
    ) -> None:
        self._values = dict(_values(config))
        self._read = read
        self._live = live
        self._grants = grants
        self._plugins = plugins
        self._turn = asyncio.Lock()

    async def run(self) -> Report:
        """Read, check, compare and apply; what was found is logged and returned."""
        async with self._turn:
            report = await self._run()
            report.tell()
            return report

    async def _run(self) -> Report:
        try:
            config = await asyncio.to_thread(self._read)
            granted = Item("grants", APPLIED if await self._grants() else UNCHANGED, "for what registers from now on")
        except ConfigError as error:
            return Report(problems=[str(problem) for problem in error.problems])
        except BadDocument as error:
            return Report(problems=[str(error)])
        items = [granted, *(self._apply(name, value, config) for name, value in _values(config))]
        warnings = [str(warning) for warning in config.warnings]
        try:
            outcomes = await self._plugins()
        except SupervisorError as error:
            return Report([*items, Item("plugins", FAILED, error.text)], warnings=warnings)
        plugins = [Item(f"plugin {each.plugin_id}", each.result, each.text) for each in outcomes]
        return Report([*items, *plugins], warnings=warnings)

    def _apply(self, name: str, value: object, config: Config) -> Item:
        if self._values[name] == value:
            return Item(name, UNCHANGED)
        change = f"{_shown(self._values[name])} → {_shown(value)}"
        if name not in self._live:
            return Item(name, NEEDS_RESTART, change)
        self._live[name](config)
        self._values[name] = value
        return Item(name, APPLIED, change)


def _values(config: Config) -> Iterator[tuple[str, object]]:
    for setting in config.describe():
        yield setting.name, reduce(getattr, setting.name.split("."), config)


def _shown(value: object) -> str:
    # Every kind of value hides its own secrets, so nothing is left to be hidden here.
    return str(value).lower() if isinstance(value, bool) else str(value)
