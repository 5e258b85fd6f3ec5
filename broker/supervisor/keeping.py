"""How one run of a plugin is kept within its limits of memory, CPU and processes: by the kernel or by a watch."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

from broker.supervisor.cgroups import Groups
from broker.supervisor.confinement import ResourceLimits
from broker.supervisor.excess import Excess, Watch

REPORT, RESTART, STOP = "report", "restart", "stop"

_KILLED = "the kernel killed it, as it exceeded its memory limit"
_REFUSED = "the kernel had refused it processes and threads beyond its limit"


class Keeping:
    """The limits of one run, which hold for all of its processes together.

    Args:
        limits: of the plugin; nothing is done where there are none.
        groups: where the kernel keeps them; None where it is not to.
        window: seconds over which CPU is judged.

    `watch` compares what it uses, and is None where there is nothing to compare. `ordered` is done once the run has to
    end, or was ended, because of an excess; `by_kernel` says by limit what the kernel did that was not told before.
    """

    def __init__(self, plugin_id: str, limits: ResourceLimits, groups: Groups | None, window: float) -> None:
        self.watch = Watch(limits, window) if limits.of_all() else None
        self.ordered: asyncio.Future[Excess] = asyncio.get_running_loop().create_future()
        self.by_kernel: dict[str, str] = {}
        self.group = ""
        self._refused = 0
        self._limits = limits
        self._groups = groups
        # A name of its own for each run: during an upgrade there are two of one plugin.
        self._name = f"{plugin_id}-{secrets.token_hex(4)}"
        self._missing = ""
        if groups is not None:
            self._open(groups)

    @property
    def over(self) -> tuple[str, ...]:
        """The limits that are exceeded now, in words."""
        return self.watch.told if self.watch else ()

    def order(self, excess: Excess) -> None:
        """The run has to end because of this."""
        if not self.ordered.done():
            self.ordered.set_result(excess)

    def end(self) -> str:
        """Let go of the group; returns what its limits had to do with the end of the run, if anything."""
        killed = refused = 0
        if self._groups and self.group:
            killed, refused = (self._groups.kept(self._name, limit) for limit in ("memory", "processes"))
            self._groups.close(self._name)
        if refused > self._refused:
            self.by_kernel["processes"] = "refused"
        if killed:
            self.by_kernel["memory"] = "killed"
            self.order(Excess("memory", _KILLED, self._limits.over or RESTART))
            return _KILLED
        if self.ordered.done():
            excess = self.ordered.result()
            return f"it {excess.text} (over: {excess.over})"
        return _REFUSED if refused else ""

    def refusal(self) -> Excess | None:
        """What the kernel has refused the run since this was asked last; it knows no other way to keep that limit."""
        refused = self._groups.kept(self._name, "processes") if self._groups and self.group else 0
        if refused <= self._refused:
            return None
        self._refused = refused
        text = f"wanted more processes and threads than its limit of {self._limits.processes}, which were refused"
        return Excess("processes", text, REPORT)

    def shown(self, in_force: Mapping[str, Any]) -> dict[str, Any]:
        """What is in force by the launcher's report, with these limits."""
        limits = self._limits.of_all()
        if not limits:
            return dict(in_force)
        if in_force.get("cgroup"):
            return {**limits, **in_force}
        missing = list(in_force.get("missing", ()))
        if self._missing:
            missing.append(f"{', '.join(limits)}: not kept by the kernel, only watched: {self._missing}")
        return {**in_force, "watched": ", ".join(limits), "missing": missing}

    def _open(self, groups: Groups) -> None:
        try:
            self.group = groups.open(self._name, self._limits)
        except OSError as error:
            # A limit that is watched is better than a plugin that does not run.
            self._missing = f"cgroup v2: {error.filename}: {error.strerror}"
            groups.close(self._name)
            return
        if not self.group and self._limits.over != REPORT:
            self._missing = groups.missing
