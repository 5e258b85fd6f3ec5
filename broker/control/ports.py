"""What the control services need of the rest of the broker; the daemon provides it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from broker.core.observer import Observed
from broker.core.snapshot import Snapshot


class PluginFacts(Protocol):
    """What the supervisor knows of one plugin; times in seconds before now."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def desired(self) -> str: ...
    @property
    def register_status(self) -> int: ...
    @property
    def managed(self) -> bool: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def session(self) -> int | None: ...
    @property
    def restarts(self) -> int: ...
    @property
    def uptime(self) -> float | None: ...
    @property
    def since(self) -> float: ...
    @property
    def error(self) -> str: ...
    @property
    def last_exit(self) -> str: ...
    @property
    def requires(self) -> Sequence[str]: ...
    @property
    def log_dropped(self) -> int: ...
    @property
    def asked(self) -> Mapping[str, Any]: ...
    @property
    def in_force(self) -> Mapping[str, Any] | None: ...


class Work(Protocol):
    """What the supervisor counts of all plugins together."""

    @property
    def unmet(self) -> int: ...
    @property
    def conflicting(self) -> int: ...
    @property
    def cycles(self) -> int: ...
    @property
    def cleanups(self) -> int: ...
    @property
    def cleanups_failed(self) -> int: ...


class Usage(Protocol):
    """What some processes use; `cpu_secs` since they began."""

    @property
    def memory_bytes(self) -> int: ...
    @property
    def cpu_secs(self) -> float: ...
    @property
    def threads(self) -> int: ...
    @property
    def processes(self) -> int: ...


class Measured(Protocol):
    """What all processes use: of each plugin by its process id, of the broker alone, and of everything together."""

    @property
    def plugins(self) -> Mapping[int, Usage]: ...
    @property
    def broker(self) -> Usage: ...
    @property
    def total(self) -> Usage: ...


class Plugins(Protocol):
    """The supervisor, as far as it can be asked and ordered."""

    def snapshot(self) -> Sequence[PluginFacts]:
        """Every plugin that is known."""

    def figures(self) -> Work:
        """What is counted of all of them."""

    async def start(self, name: str) -> None:
        """Start one, after what it needs; raises BusError when that fails."""

    async def stop(self, name: str) -> Sequence[str]:
        """Stop one, before it what needs it; returns the names in order. Raises BusError for an unknown name."""


class Facts(Protocol):
    """The broker itself."""

    def router(self) -> Snapshot:
        """The bus at this moment."""

    def observe(self, secs: float) -> None:
        """Learn for so long who publishes what and who calls whom."""

    def observed(self) -> Observed:
        """What was learnt, and since when."""

    async def usage(self, pids: Collection[int]) -> Measured:
        """What the processes of the broker and of plugins use."""

    def broker(self) -> Mapping[str, Any]:
        """Version, process, database and the like, ready for JSON."""

    def read_keys(self) -> int:
        """Read the keys in the home anew; returns how many there are."""

    async def reload_config(self) -> Mapping[str, Any]:
        """Read the configuration anew; returns what became of each item, or what is wrong with it."""

    def audit(self, actor: str, action: str, target: str, result: str, detail: str = "") -> None:
        """Write into the audit log."""
