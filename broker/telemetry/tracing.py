"""Spans of what the broker does; the daemon imports this only where traces are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link, Span, Status, StatusCode

TRACER = "plugmesh.broker"


class Recorder:
    """Makes a span of each tracepoint."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(TRACER)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str | int]) -> Iterator[Span]:
        """A span that is the current one meanwhile, and tells what was raised.

        What goes on when the span that it was begun in is long over, such as the life of a plugin, is a trace of its
        own, with a link to the old one.
        """
        context, links = get_current(), []
        origin = trace.get_current_span(context)
        if _has_ended(origin):
            context, links = Context(), [Link(origin.get_span_context())]
        with self._tracer.start_as_current_span(
            name, context, attributes=attributes, links=links, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR, str(error)[:500]))
                raise

    def environment(self) -> dict[str, str]:
        """TRACEPARENT, TRACESTATE and BAGGAGE, as the OpenTelemetry specification of environment carriers has it."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return {name.upper().replace("-", "_"): value for name, value in carrier.items()}


def _has_ended(span: Span) -> bool:
    context = span.get_span_context()
    return context.trace_flags.sampled and not context.is_remote and not span.is_recording()
