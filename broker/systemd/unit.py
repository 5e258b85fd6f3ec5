"""The unit file of a broker, and how one of ours is told from one that somebody has edited."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_MARGIN_SECS = 10.0

_SEAL = re.compile(r"^# plugmesh-unit: ([0-9a-f]{64})\n", re.MULTILINE)

_HEAD = """\
# Made by `broker systemd install`, which refuses to replace it once it was edited.
# Changes belong into a drop-in: systemctl {user}edit {name}
"""

_UNIT = """\
[Unit]
Description=plugmesh broker on {home}
After=network.target mariadb.service mysql.service
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
# Not notify-reload: systemd before 253 does not know it, and would run the broker as Type=simple.
Type=notify
NotifyAccess=main
{identity}ExecStart={start}
# Returns once the reload is over, and fails when the configuration is refused.
ExecReload={reload}
TimeoutStartSec=90
# Longer than shutdown.timeout_secs and shutdown.force_delay_secs: the broker ends by itself, in order.
TimeoutStopSec={stop_secs}
{watchdog}Restart=on-failure
RestartSec=2
# Wrong usage does not become right by repetition.
RestartPreventExitStatus=2
# The broker stops its plugins in their order; what is left of them after that is killed.
KillMode=mixed
# A plugin that runs out of memory is restarted by the broker, not a reason to stop all others.
OOMPolicy=continue
# Limits of plugins are kept by the kernel, in groups below that of the service.
Delegate=memory pids cpu
LimitNOFILE=65536
# Plugins inherit these, so nothing takes away devices, network, namespaces, writable code or home directories.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
{protection}
[Install]
WantedBy={target}
"""

# Both need a mount namespace, which the manager of a user cannot make everywhere.
_PROTECTION = "ProtectSystem=full\nProtectKernelModules=yes\n"


@dataclass(frozen=True, slots=True)
class Service:
    """What a unit is made from.

    Args:
        name: of the unit, without `.service`.
        home: of the broker.
        command: how `broker` is started, with absolute paths.
        config: its configuration file, or None for the one in the home.
        account: the user that it runs as, None in a unit of the user's own manager.
        stop_secs: after which the broker has ended by itself, None when it never does.
        watchdog_secs: without a sign of life for so long it is killed; None for no watchdog.
    """

    name: str
    home: Path
    command: Sequence[str]
    config: Path | None
    account: str | None
    stop_secs: float | None
    watchdog_secs: float | None


def make_unit(service: Service) -> str:
    """The text of the unit file, sealed."""
    command = [*service.command, "--home", str(service.home)]
    options = ["--config", str(service.config)] if service.config else []
    body = _UNIT.format(
        home=_specifiers(str(service.home)),
        identity=f"User={service.account}\n" if service.account else "",
        start=_quoted([*command, "run", *options]),
        reload=_quoted([*command, "reload-config"]),
        stop_secs="infinity" if service.stop_secs is None else f"{service.stop_secs + STOP_MARGIN_SECS:g}",
        watchdog=f"WatchdogSec={service.watchdog_secs:g}\n" if service.watchdog_secs else "",
        protection=_PROTECTION if service.account else "",
        target="multi-user.target" if service.account else "default.target",
    )
    text = _HEAD.format(user="" if service.account else "--user ", name=service.name) + body
    return f"# plugmesh-unit: {_digest(text)}\n{text}"


def is_untouched(text: str) -> bool:
    """Whether a unit file is as make_unit() made it."""
    found = _SEAL.match(text)
    return found is not None and found[1] == _digest(text[found.end() :])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _quoted(words: Sequence[str]) -> str:
    """A command line of systemd.service(5): its own quotes and escapes, `%` and `$` doubled."""
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    escaped = _specifiers(word.replace("\\", "\\\\").replace('"', '\\"')).replace("$", "$$")
    return escaped if re.fullmatch(r"[\w@%+=:,./$-]+", escaped) else f'"{escaped}"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")
