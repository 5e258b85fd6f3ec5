"""A router that leaves traces: a span for each event and request whose sender recorded one.

It stands beside the router that leaves none, as a subclass, so that nothing of it is on that one's way.
"""

from __future__ import annotations

import re
from time import time_ns
from typing import Any

from msgspec import Raw
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from broker.core.backlog import Backlog
from broker.core.requests import Requests
from broker.core.router import Router
from broker.core.sessions import Origin, Pending, Session
from broker.telemetry.tracing import TRACER
from plugin_sdk.wire import conventions as c
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_payload
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import Limits

# What follows flags with `sampled`, of which W3C Trace Context knows these two: the head of a msgpack string or bin.
# Frames and payloads without it, nearly all when few traces are recorded, are not looked into any further.
_MARK = re.compile(rb"-0[13][\xa0-\xdb]")
_RECORDED = re.compile(rb"traceparent(?:\xd9|\xda\x00)7[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-0[13]")
_HEAD_BYTES = 1024  # headers behind that are not looked for


class TracedRequests(Requests):
    """Requests with a span from the CALL to the outcome, so that time in a queue and lost callees are seen."""

    def __init__(self, limits: Limits, backlog: Backlog) -> None:
        super().__init__(limits, backlog)
        self._tracer = trace.get_tracer(TRACER)
        self._spans: dict[int, Span] = {}

    def _begin(self, session: Session, packet: p.Call, now: float, wait: float) -> Pending:
        pending = super()._begin(session, packet, now, wait)
        context = _context_of(packet.payload)
        if context is not None:
            name, attributes = f"{c.ROUTE} {packet.service}", c.calling(packet.service)
            self._spans[pending.id] = self._tracer.start_span(name, context, attributes=attributes)
        return pending

    def _end(self, pending: Pending, outcome: str, now: float) -> None:
        span = self._spans.pop(pending.id, None)
        if span is not None:
            if pending.instance is not None:
                span.set_attribute(c.CALLEE, pending.instance.session.name)
            if outcome != "reply":
                span.set_attribute(c.ERROR_TYPE, outcome)
                span.set_status(Status(StatusCode.ERROR))
            span.end()
        super()._end(pending, outcome, now)


class TracedRouter(Router):
    """A router with a span for each event, from the arrival of its frame until it is in every outbox."""

    requests_type = TracedRequests

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._tracer = trace.get_tracer(TRACER)
        self._arrived = 0

    def receive(self, peer: bytes, frame: bytes, now: float, origin: Origin | None = None) -> None:
        """As Router.receive."""
        self._arrived = time_ns() if _MARK.search(frame) else 0
        if origin is None:
            super().receive(peer, frame, now)
        else:
            super().receive(peer, frame, now, origin)

    def _act(self, session: Session, packets: list[Any], now: float) -> bool:
        if not self._arrived:
            return super()._act(session, packets, now)
        begun = [each for packet in packets if type(packet) is p.Publish and (each := self._begin(packet))]
        try:
            return super()._act(session, packets, now)
        finally:
            for subject, span in begun:
                span.set_attribute(c.DELIVERIES, self.events.audience(subject))
                span.end()

    def _begin(self, packet: p.Publish) -> tuple[str, Span] | None:
        context = _context_of(packet.payload)
        if context is None:
            return None
        name, attributes = f"{c.ROUTE} {packet.subject}", c.routing(packet.subject)
        return packet.subject, self._tracer.start_span(name, context, attributes=attributes, start_time=self._arrived)


def _context_of(payload: Raw | bytes) -> Context | None:
    """The context that a payload was sent in, None when its sender did not record it."""
    if _MARK.search(payload) is None or _RECORDED.search(payload, 0, _HEAD_BYTES) is None:
        return None
    try:
        headers, _ = decode_payload(payload)
    except BusError:
        return None
    return propagate.extract(headers, Context())
