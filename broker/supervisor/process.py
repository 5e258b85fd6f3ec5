"""One run of a plugin's program: what it is given, what it writes, and how it ends."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker import tracepoints
from broker.supervisor.cgroups import Groups
from broker.supervisor.confinement import (
    NO_LIMITS,
    PACKAGE_SANDBOX,
    AskedSandbox,
    Confinement,
    Mode,
    ResourceLimits,
    confinement,
)
from broker.supervisor.discovery import Installed
from broker.supervisor.excess import CPU_WINDOW_SECS
from broker.supervisor.guard import KILL_SECS
from broker.supervisor.keeping import Keeping
from broker.supervisor.logs import PluginLog
from broker.supervisor.output import Output
from broker.supervisor.spawner import Exit, Program, Spawner

# The broker's own settings, the database password among them, and what systemd tells the broker are not meant for
# plugins; a plugin that answered the watchdog would hide that the broker hangs. Nor is what the broker itself is called
# in traces, and the trace that it was started in.
_PRIVATE_PREFIX = "BROKER_"
_MEANT_FOR_ALL = frozenset({"BROKER_TRACES_PER_SEC"})
_PRIVATE_NAMES = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE"}
    | {"OTEL_SERVICE_NAME", "TRACEPARENT", "TRACESTATE", "BAGGAGE"}
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every plugin of this broker finds around it.

    Args:
        home: home of the broker.
        endpoint: where plugins connect.
        data_dir: holds a folder for each plugin.
        environ: the broker's own environment; what is private to the broker is left out of it.
        most: the limits that no manifest exceeds.
        sandbox: the mode of plugins about which nobody says anything; packages have one in any case.
        groups: where the kernel keeps limits; None where it is not to.
        cpu_window: seconds over which the use of CPU is judged.
    """

    home: Path
    endpoint: str
    data_dir: Path
    environ: Mapping[str, str]
    most: ResourceLimits = NO_LIMITS
    sandbox: Mode = "off"
    groups: Groups | None = None
    cpu_window: float = CPU_WINDOW_SECS

    def confinement(self, plugin: Installed) -> Confinement:
        """The limits and the sandbox that a plugin is to have."""
        manifest, orders = plugin.manifest, plugin.orders
        asked = (manifest.limits, manifest.sandbox) if manifest else (NO_LIMITS, AskedSandbox())
        # Who copies a folder there knows its code; a package is the work of somebody else.
        default = PACKAGE_SANDBOX if plugin.packaged and self.sandbox == "off" else self.sandbox
        return confinement(*asked, orders.limits, orders.sandbox, self.most, default)

    def program(self, plugin: Installed, generation: int, token: str, mount: str, group: str = "") -> Program:
        """What to run for one run of a plugin.

        Args:
            token: admits this run, once, to the bus.
            mount: the name under which it serves.
            group: the folder of its control group, or nothing.
        """
        data = str(self.data_dir / plugin.plugin_id)
        own = plugin.manifest.env if plugin.manifest else {}
        env = {
            **self._inherited(),
            **_traced_as(plugin.plugin_id),
            **own,
            "BROKER_HOME": str(self.home),
            "BROKER_ENDPOINT": self.endpoint,
            "BROKER_PLUGIN": plugin.plugin_id,
            "BROKER_MOUNT": mount,
            "BROKER_TOKEN": token,
            "BROKER_DATA_DIR": data,
            "BROKER_GENERATION": str(generation),
        }
        confined = self.confinement(plugin)
        if confined.mode != "off":
            env["TMPDIR"] = f"{data}/tmp"  # the common one is out of reach
        socket = self.endpoint.removeprefix("ipc://") if self.endpoint.startswith("ipc://") else ""
        plan = confined.plan(str(plugin.folder), data, socket, env, group)
        return Program(plugin.command, str(plugin.folder), data, env, plan)

    def _inherited(self) -> dict[str, str]:
        # Without PYTHONUNBUFFERED a Python plugin that is killed takes its last words with it.
        return {"PYTHONUNBUFFERED": "1"} | {
            name: value
            for name, value in self.environ.items()
            if name in _MEANT_FOR_ALL or not (name.startswith(_PRIVATE_PREFIX) or name in _PRIVATE_NAMES)
        }


class Process:
    """A run of an installed plugin; it is forked at once and runs its program after `go`."""

    def __init__(
        self, plugin: Installed, generation: int, around: Surroundings, spawner: Spawner, log: PluginLog, mount: str
    ) -> None:
        self.token = secrets.token_urlsafe(32)
        self.mount = mount
        self.confinement = around.confinement(plugin)
        self.keeping = Keeping(plugin.plugin_id, self.confinement.limits, around.groups, around.cpu_window)
        self._began = time.monotonic()
        self.pid: int | None = None
        self._output = Output(log)
        try:
            program = around.program(plugin, generation, self.token, self.mount, self.keeping.group)
            self._child = spawner.spawn(program, self._output.write_end, self.keeping.end)
        except BaseException:
            self._output.finish()
            self.keeping.end()
            raise
        finally:
            self._output.handed_over()
        # Registered before anybody else can wait for the end, so that whoever does finds the last lines complete.
        self._child.exited.add_done_callback(lambda _: self._output.finish())
        self._child.spawned.add_done_callback(self._note_pid)

    @property
    def exited(self) -> "asyncio.Future[Exit]":
        """Done when nothing of the process lives any more; not to be cancelled."""
        return self._child.exited

    @property
    def in_force(self) -> Mapping[str, Any] | None:
        """What of its limits and its sandbox is in force, once it runs."""
        found = self._child.in_force
        return None if found is None else self.keeping.shown(found)

    @property
    def kept_by_kernel(self) -> bool:
        """Whether its limits are those of a control group, which it cannot exceed."""
        return bool(self._child.in_force and self._child.in_force.get("cgroup"))

    @property
    def spawned(self) -> "asyncio.Future[int]":
        """The process id, once it is forked; cancelled when it never was."""
        return self._child.spawned

    def go(self) -> None:
        """Lets the program run; call it when the bus knows whom to expect."""
        self._child.go()

    def stop(self, grace: float) -> None:
        """SIGTERM to all of it, and SIGKILL after `grace` seconds; at once when that is 0."""
        self._child.stop(grace)

    async def end(self, grace: float) -> Exit:
        """Stops it and waits until nothing of it lives, or what does has shown that it cannot be killed."""
        self.stop(grace)
        # The guard keeps the time; this limit is for a guard that does not.
        await asyncio.wait({self.exited}, timeout=grace + 2 * KILL_SECS)
        if not self.exited.done():
            self._child.abandon(f"could not be ended and is left to its guard, process {self.pid}")
        return self.exited.result()

    def age(self) -> float:
        """Seconds since it was ordered; for any thread."""
        return time.monotonic() - self._began

    def tail(self) -> list[str]:
        """The last lines it wrote."""
        return self._output.tail()

    def _note_pid(self, spawned: "asyncio.Future[int]") -> None:
        if not spawned.cancelled():
            self.pid = spawned.result()


def _traced_as(plugin_id: str) -> dict[str, str]:
    """What makes the spans of a plugin, in any language, its own and part of the present one."""
    carried = tracepoints.environment()
    return {} if carried is None else {"OTEL_SERVICE_NAME": plugin_id, **carried}
