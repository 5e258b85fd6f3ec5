"""What is told of a plugin to those who look."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
        since: seconds that it has been in its state.
        error: why it is not running, over several lines.
        last_exit: how its last run ended.
        log_dropped: lines that it wrote and that were dropped because they came too fast.
        asked: limits and sandbox that its process is to have.
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
    since: float
    error: str
    last_exit: str
    requires: tuple[str, ...]
    log_dropped: int
    asked: Mapping[str, Any] = field(default_factory=dict)
    in_force: Mapping[str, Any] | None = None
