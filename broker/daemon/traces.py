"""Whether this broker leaves traces, decided once at its start."""

from __future__ import annotations

from broker import __version__, tracepoints
from broker.core import Router
from plugin_sdk import exporting

SERVICE = "plugmesh"


def set_up() -> type[Router]:
    """Begin to export spans if the OTEL_* variables say so; returns the router to use.

    Without them nothing of OpenTelemetry is imported, and the router is the plain one.
    """
    if not exporting.asked() or exporting.set_up(SERVICE, __version__) is None:
        return Router
    from broker.telemetry.routing import TracedRouter
    from broker.telemetry.tracing import Recorder

    tracepoints.listen(Recorder())
    return TracedRouter
