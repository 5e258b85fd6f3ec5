"""Answers of `$broker.status` with as many plugins as a test wants."""

from typing import Any

from broker.supervisor.view import PluginView
from plugin_sdk.wire import packets as p
from tests.core_driver import Mesh
from tests.unit.telemetry.document import status, view

TROUBLE = "plugin 'bad' did not start in 3 attempts: register: the process exited with status 1 after 0.02 s"


def running(number: int, *others: PluginView, **stats: Any) -> dict[str, Any]:
    """A status with so many plugins that run and say this of themselves, and others."""
    mesh = Mesh()
    views = []
    for index in range(number):
        peer = mesh.plugin(f"plugin{index:02}")
        peer.send(p.Ping(1, stats))
        views.append(view(f"plugin{index:02}", session=peer.number, pid=1000 + index))
    return status(mesh, *views, *others)


def failed(name: str = "bad", error: str = TROUBLE) -> PluginView:
    """A plugin that did not come up."""
    return view(name, state="failed", register_status=3, uptime=None, error=error)
