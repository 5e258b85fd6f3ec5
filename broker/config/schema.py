"""Every setting there is: its section, name, kind, bounds and default.

Names of files and folders are relative to the home of the broker. What depends on the home or on the machine
has its default in `defaults()`, everything else beside its kind.
"""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from broker.config.values import (
    AnyCase,
    DatabaseUrl,
    Folder,
    Secs,
    SocketPath,
    StateUrl,
    TcpEndpoint,
    not_yet,
)

MIB = 1 << 20


class Section(BaseModel):
    """A table of settings that cannot change once it is built."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class BrokerSection(Section):
    """Who this broker is and how it logs."""

    node: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$")]
    log_level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = "info"
    log_format: Annotated[Literal["text", "json"], AnyCase] = "text"


class BusSection(Section):
    """Where peers connect and what one of them may take."""

    socket: SocketPath
    tcp: TcpEndpoint = ""
    # libzmq cuts connections with heartbeats above a minute (libzmq#4226).
    heartbeat_secs: Annotated[Secs, Field(ge=0.05, le=60)] = 5.0
    max_frame_bytes: Annotated[int, Field(ge=64 * 1024, le=256 * MIB)] = 8 * MIB
    credit_bytes: Annotated[int, Field(ge=64 * 1024, le=1024 * MIB)] = MIB


class PluginManagerSection(Section):
    """Where plugins live and how they are started."""

    plugin_dir: Folder
    config_dir: Folder
    data_dir: Folder
    max_concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    timeout: Annotated[Secs, Field(ge=0.1, le=3600)] = 10.0
    enable_sandbox: Annotated[bool, not_yet("sandboxing of plugins")] = False
    max_memory: Annotated[int, Field(ge=0), not_yet("a memory limit for plugins")] = 0
    max_cpu: Annotated[int, Field(ge=0), not_yet("a CPU limit for plugins")] = 0
    enable_metrics: Annotated[bool, not_yet("the metrics endpoint")] = False
    metrics_port: Annotated[int, Field(ge=1, le=65535)] = 9090
    enable_hot_reload: Annotated[bool, not_yet("reloading of changed plugins")] = False
    watch_interval: Annotated[Secs, Field(ge=0.1, le=3600)] = 1.0


class DatabaseSection(Section):
    """Where the state is kept and how many writes may wait for it."""

    url: StateUrl
    queue_limit: Annotated[int, Field(ge=100, le=10_000_000)] = 10_000


class WatchdogSection(Section):
    """The watchdog of systemd."""

    enabled: Annotated[bool, not_yet("the systemd watchdog")] = False
    timeout_secs: Annotated[Secs, Field(ge=1, le=3600)] = 30.0
    interval_secs: Annotated[Secs, Field(ge=0.5, le=3600)] = 10.0


class ShutdownSection(Section):
    """How long an orderly stop may take, and what ends it then."""

    timeout_secs: Annotated[Secs, Field(ge=0.1, le=3600)] = 30.0
    force_quit: bool = True
    force_delay_secs: Annotated[Secs, Field(ge=0.1, le=3600)] = 10.0
    watchdog: WatchdogSection


class Sections(Section):
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


def settings(section: type[Section] = Sections, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by its full dotted name, in the order of the schema."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from settings(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field
