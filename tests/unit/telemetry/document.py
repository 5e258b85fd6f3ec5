"""A status as `$broker.status` gives it, with figures that a test chooses."""

from typing import Any

from broker.control.figures import add_usage, totals
from broker.control.slow import slow_as_map
from broker.control.status import describe_plugins
from broker.supervisor.view import Figures, PluginView
from broker.telemetry.usage import Measured, Usage
from tests.core_driver import Mesh


def view(name: str, **changes: Any) -> PluginView:
    """What the supervisor tells of a plugin that runs."""
    fields: dict[str, Any] = {
        "name": name,
        "version": "1.0",
        "description": "",
        "state": "running",
        "desired": "running",
        "register_status": 2,
        "managed": True,
        "enabled": True,
        "pid": None,
        "session": None,
        "restarts": 0,
        "uptime": 60.0,
        "since": 60.0,
        "error": "",
        "note": "",
        "last_exit": "",
        "requires": (),
        "cause": "",
        "chain": (),
        "retry_in": None,
        "runs": 1,
        "log_dropped": 0,
        **changes,
    }
    return PluginView(**fields)


def status(mesh: Mesh, *views: PluginView) -> dict[str, Any]:
    """The status of a broker with this router and these plugins."""
    snapshot = mesh.router.snapshot(mesh.now)
    rows = [row | {"package": {}} for row in describe_plugins(views, snapshot, 5.0)]
    database = {"status": "up", "reason": "", "pending": 0, "written": 4, "dropped": 0}
    broker = {
        "version": "1.2.3",
        "node": "here",
        "pid": 1,
        "uptime_secs": 60.0,
        "heartbeat_secs": 5.0,
        "events_per_sec": 0.0,
        "database": database,
        "warnings": [],
        **totals(snapshot, rows, Figures(1, 2, 3, 4, 1)),
    }
    document = {"broker": broker, "plugins": rows, "slow_consumers": list(map(slow_as_map, snapshot.slow))}
    used = {row["pid"]: Usage(1 << 20, 2.0, 3, 1) for row in rows if row["pid"]}
    add_usage(document, Measured(used, Usage(2 << 20, 1.0, 4, 1), Usage(3 << 20, 3.0, 7, 2)))
    return document
