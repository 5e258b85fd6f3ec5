"""What the control services need of the rest of the broker; the daemon provides it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from broker.control.lately import Incident
from broker.core.observer import Observed
from broker.core.snapshot import Snapshot


class QuarantineFacts(Protocol):
    """Content of a plugin that must not be started."""

    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def since(self) -> datetime: ...
    @property
    def reason(self) -> str: ...


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
    def note(self) -> str: ...
    @property
    def cause(self) -> str: ...
    @property
    def chain(self) -> Sequence[str]: ...
    @property
    def retry_in(self) -> float | None: ...
    @property
    def runs(self) -> int: ...
    @property
    def last_exit(self) -> str: ...
    @property
    def requires(self) -> Sequence[str]: ...
    @property
    def parent(self) -> str: ...
    @property
    def mount(self) -> str: ...
    @property
    def quarantine(self) -> Sequence[QuarantineFacts]: ...
    @property
    def log_dropped(self) -> int: ...
    @property
    def asked(self) -> Mapping[str, Any]: ...
    @property
    def in_force(self) -> Mapping[str, Any] | None: ...
    @property
    def over(self) -> Sequence[str]: ...
    @property
    def exceeded(self) -> Mapping[str, int]: ...


class RenewalFacts(Protocol):
    """What became of one plugin in a reload; `error` is empty when it runs."""

    @property
    def plugin_id(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def error(self) -> str: ...


class LineFacts(Protocol):
    """A line that a plugin wrote: when it came in (UTC), its level, and the text."""

    @property
    def at(self) -> str: ...
    @property
    def level(self) -> str: ...
    @property
    def text(self) -> str: ...


class UpgradeFacts(Protocol):
    """What an upgrade has done; `running` is False when the plugin is stopped and stays so."""

    @property
    def plugin_id(self) -> str: ...
    @property
    def before(self) -> str: ...
    @property
    def after(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def running(self) -> bool: ...


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

    async def start(self, name: str, *, force: bool = False) -> None:
        """Start one, after what it needs and with `force` in spite of a quarantine; raises BusError when that fails."""

    async def stop(self, name: str) -> Sequence[str]:
        """Stop one, before it what needs it; returns the names in order. Raises BusError for an unknown name."""

    async def renew(self, names: Sequence[str] | None) -> Sequence[RenewalFacts]:
        """Reload these, or with None all that are not stopped; returns what became of each."""

    async def logs(self, name: str, number: int, least: str) -> Sequence[LineFacts]:
        """The last lines that one wrote, of a level or graver ones, oldest first."""

    async def enable(self, name: str) -> None:
        """Let one run again and start it; raises BusError when that fails."""

    async def disable(self, name: str) -> Sequence[str]:
        """Stop one, before it what needs it, and keep it from running; returns the names in order."""

    async def drain(self, name: str, limit: float) -> bool:
        """Give one nothing new and wait up to `limit` seconds until it has finished what it has; whether it has."""

    def undrain(self, name: str) -> None:
        """Put one back that was drained."""

    async def upgrade(self, name: str, folder: Path | None = None, *, force: bool = False) -> UpgradeFacts:
        """Put the version in `folder`, or in its own folder, in the place of the one that serves."""


class Facts(Protocol):
    """The broker itself."""

    def lately(self, name: str) -> Sequence[Incident]:
        """What was refused of late to whoever goes by this name, newest last."""

    def process_state(self, pid: int) -> str:
        """The state of a process as the kernel has it, such as `S` or `T`; empty when there is none."""

    async def ask_health(self, session: int) -> Mapping[str, Any]:
        """What a plugin says of itself right now; `ok` is False when it does not answer, too."""

    def plugin_dir(self) -> str:
        """Where plugin folders are put."""

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

    def packages(self) -> Mapping[str, Mapping[str, Any]]:
        """What was installed as a package, by plugin id, ready for JSON."""

    def refused_packages(self, name: str) -> Sequence[str]:
        """Why package files of a plugin are not taken, a text for each, which begins with the file."""

    def read_keys(self) -> int:
        """Read the keys in the home anew; returns how many there are."""

    async def reload_config(self) -> Mapping[str, Any]:
        """Read the configuration anew; returns what became of each item, or what is wrong with it."""

    async def read_audit(self, limit: int, target: str | None) -> Sequence[dict[str, str]]:
        """The newest entries of the audit log, oldest first; raises BusError while the database is away."""

    def audit(self, actor: str, action: str, target: str, result: str, detail: str = "") -> None:
        """Write into the audit log."""
