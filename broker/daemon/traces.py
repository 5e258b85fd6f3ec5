"""Whether this broker leaves traces, decided once at its start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from broker import __version__, tracepoints
from broker.core import Router
from plugin_sdk import exporting

SERVICE = "plugmesh"


def set_up() -> Callable[..., Router]:
    """Begin to export spans if the OTEL_* variables say so; returns what makes the router to use.

    Without them nothing of OpenTelemetry is imported, and the router is the plain one.
    """
    export = exporting.set_up(SERVICE, __version__) if exporting.asked() else None
    if export is None:
        return Router
    from broker.telemetry.routing import TracedRouter
    from broker.telemetry.tracing import Recorder

    tracepoints.listen(Recorder())
    return partial(TracedRouter, export.heads)
