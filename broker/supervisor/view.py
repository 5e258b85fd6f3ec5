"""What is told of a plugin to those who look."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.supervisor.standing import Quarantined


@dataclass(frozen=True, slots=True)
class PluginView:
    """One plugin at one moment.

    Args:
        name: its id, as orders and dependencies use it.
        state: what is seen of it, a value of `State`.
        desired: what the operator wants, a value of `Desired`.
        register_status: 0 to 3, as in the table `t_plugin` (PLG-4).
        managed: False for a process that was started by hand.
        restarts: how often it was started again without being asked to.
        uptime: seconds since its process began, or came in when it was started by hand; None when it has none.
        since: seconds that it has been in its state.
        error: why it is not running, over several lines.
        cause: of which kind that is, a value of `Cause`; empty unless it has failed.
        chain: the plugin and what it needs, down to the one at fault, when that is why.
        retry_in: seconds until it is tried again by itself; None when it is not.
        runs: how often it has come up.
        note: what else the operator should know of its state.
        quarantine: content of it that must not be started.
        over: the limits that it exceeds now, in words.
        exceeded: by limit, how often it began to.
        last_exit: how its last run ended.
        run_age: seconds since its process was ordered; None when the broker runs none for it.
        log_dropped: lines that it wrote and that were dropped because they came too fast.
        asked: limits and sandbox that its process is to have.
        parent: the plugin on which it mounts, with the versions that will do; empty for none.
        mount: the name under which it serves.
        in_force: those that it has, and under `missing` why it has not the others; None when it has no process.
    """

    name: str
    version: str
    description: str
    state: str
    desired: str
    register_status: int
    managed: bool
    enabled: bool
    pid: int | None
    session: int | None
    restarts: int
    uptime: float | None
    since: float
    error: str
    note: str
    last_exit: str
    requires: tuple[str, ...]
    cause: str
    chain: tuple[str, ...]
    retry_in: float | None
    runs: int
    log_dropped: int
    asked: Mapping[str, Any] = field(default_factory=dict)
    in_force: Mapping[str, Any] | None = None
    run_age: float | None = None
    parent: str = ""
    mount: str = ""
    quarantine: tuple[Quarantined, ...] = ()
    over: tuple[str, ...] = ()
    exceeded: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted of all plugins together.

    Args:
        unmet: plugins with a need of their own that nobody meets.
        conflicting: plugins that cannot start beside another one.
        cycles: rounds of plugins that need each other.
        cleanups: how often a plugin was asked to clean up.
        cleanups_failed: how often that failed, or was not done in its time.
    """

    unmet: int
    conflicting: int
    cycles: int
    cleanups: int
    cleanups_failed: int
