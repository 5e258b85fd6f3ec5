"""Every setting there is: its section, name, kind, bounds and default.

Names of files and folders are relative to the home of the broker. What depends on the home or on the machine
has its default in `defaults()`, everything else beside its kind.
"""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, structs

from broker.config.values import DatabaseUrl, Folder, SocketPath, StateUrl, TcpEndpoint, not_yet

MIB = 1 << 20

_NODE = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z"
_NODE_TEXT = "letters, digits, '.', '_' and '-' in quotes, at most 64, with a letter or digit at both ends"


class Section(Struct, frozen=True):
    """A table of settings that cannot change once it is built."""


class BrokerSection(Section, frozen=True):
    """Who this broker is and how it logs."""

    node: Annotated[str, Meta(pattern=_NODE, description=_NODE_TEXT)]
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"


class BusSection(Section, frozen=True):
    """Where peers connect, what one of them may take, and how much may wait for all of them."""

    socket: SocketPath
    tcp: TcpEndpoint = ""
    # libzmq cuts connections with heartbeats above a minute (libzmq#4226).
    heartbeat_secs: Annotated[float, Meta(ge=0.05, le=60)] = 5.0
    max_frame_bytes: Annotated[int, Meta(ge=64 * 1024, le=256 * MIB)] = 8 * MIB
    max_waiting_bytes: Annotated[int, Meta(ge=16 * MIB, le=1024 * 1024 * MIB)] = 256 * MIB
    credit_bytes: Annotated[int, Meta(ge=64 * 1024, le=1024 * MIB)] = 2 * MIB


class PluginManagerSection(Section, frozen=True):
    """Where plugins live and how they are started."""

    plugin_dir: Folder
    config_dir: Folder
    data_dir: Folder
    max_concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    timeout: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    permissions: Literal["declared", "granted"] = "declared"
    enable_sandbox: bool = False
    max_memory: Annotated[int, Meta(ge=0, description="a number of MiB, 0 for no limit")] = 0
    max_cpu: Annotated[int, Meta(ge=0, description="percent of one core, 0 for no limit")] = 0
    enable_metrics: Annotated[bool, not_yet("the metrics endpoint")] = False
    metrics_port: Annotated[int, Meta(ge=1, le=65535)] = 9090
    enable_hot_reload: Annotated[bool, not_yet("reloading of changed plugins")] = False
    watch_interval: Annotated[float, Meta(ge=0.1, le=3600)] = 1.0


class DatabaseSection(Section, frozen=True):
    """Where the state is kept, how many writes may wait for it, and how long the audit log is kept (0 for ever)."""

    url: StateUrl
    queue_limit: Annotated[int, Meta(ge=100, le=10_000_000)] = 10_000
    audit_keep_days: Annotated[float, Meta(ge=0, le=36_500)] = 90.0


class WatchdogSection(Section, frozen=True):
    """The watchdog of systemd."""

    enabled: bool = False
    timeout_secs: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    interval_secs: Annotated[float, Meta(ge=0.5, le=3600)] = 10.0


class ShutdownSection(Section, frozen=True, kw_only=True):
    """How long an orderly stop may take, what ends it then, and whether SIGHUP begins one."""

    timeout_secs: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    force_quit: bool = True
    force_delay_secs: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    sighup: Literal["reload", "stop"] = "reload"
    watchdog: WatchdogSection


class Sections(Section, frozen=True):
    """All sections."""

    broker: BrokerSection
    bus: BusSection
    plugin_manager: PluginManagerSection
    database: DatabaseSection
    shutdown: ShutdownSection


def defaults(home: Path) -> dict[str, dict[str, Any]]:
    """The defaults that depend on the home or on the machine, nested like the content of a file."""
    return {
        "broker": {"node": _node_name()},
        "bus": {"socket": home / "run" / "broker.sock"},
        "plugin_manager": {
            "plugin_dir": home / "plugins",
            "config_dir": home / "config",
            "data_dir": home / "data",
        },
        "database": {"url": DatabaseUrl(f"sqlite:///{home / 'broker.db'}")},
        "shutdown": {"watchdog": {}},
    }


def _node_name() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64].strip("-.") or "localhost"


def settings(section: type[Section] = Sections, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its full dotted name with its kind, in the order of the schema."""
    for field in structs.fields(section):
        name = f"{prefix}{field.name}"
        if is_section(field.type):
            yield from settings(field.type, f"{name}.")
        else:
            yield name, field.type


def is_section(kind: Any) -> bool:
    """Whether a kind is a table of settings."""
    return isinstance(kind, type) and issubclass(kind, Section)
