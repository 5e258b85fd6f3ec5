"""A router that leaves traces: a span for each event and request whose sender recorded one.

It stands beside the router that leaves none, as a subclass, so that nothing of it is on that one's way. Senders that
leave no traces themselves have theirs begun here.
"""

from __future__ import annotations

import re
from time import time_ns
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from broker.core.backlog import Backlog
from broker.core.requests import Requests
from broker.core.router import Router
from broker.core.sessions import Origin, Pending, Session
from broker.core.snapshot import Snapshot
from broker.telemetry.tracing import TRACER
from plugin_sdk.heads import Heads, chosen
from plugin_sdk.wire import conventions as c
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_payload, encode_payload
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import Limits

# Frames without it, nearly all when few traces are recorded, are not looked into any further. Even to look for it costs
# a tenth of what else is done for a small event, so the SDK begins a new frame with whatever is recorded.
_MARK = c.TRACEPARENT.encode()
# Before it stands its length, as msgpack writes it in one byte, or in more. To look for these bytes first takes a
# twentieth of the time, and most frames have none of them.
_LENGTHS = 0xA0 | len(_MARK), len(_MARK)
# A msgpack string of 55 bytes whose flags say `sampled`; W3C Trace Context knows these two.
_RECORDED = re.compile(rb"traceparent(?:\xd9|\xda\x00)7[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-0[13]")
HEAD_BYTES = 1024  # headers behind that are not looked for
FRAME_HEAD_BYTES = HEAD_BYTES + 512  # with all that stands before the first payload


class TracedRequests(Requests):
    """Requests with a span from the CALL to the outcome, so that time in a queue and lost callees are seen."""

    def __init__(self, limits: Limits, backlog: Backlog) -> None:
        super().__init__(limits, backlog)
        self.marked = False
        self.roots: dict[int, Span] = {}
        self._tracer = trace.get_tracer(TRACER)
        self._spans: dict[int, Span] = {}

    def _begin(self, session: Session, packet: p.Call, now: float, wait: float) -> Pending:
        pending = Requests._begin(self, session, packet, now, wait)
        if self.marked:
            span = self.roots.pop(packet.ref, None) or self._continue(packet)
            if span is not None:
                self._spans[pending.id] = span
        return pending

    def _continue(self, packet: p.Call) -> Span | None:
        context = _context_of(packet.payload)
        if context is None:
            return None
        return self._tracer.start_span(f"{c.ROUTE} {packet.service}", context, attributes=c.calling(packet.service))

    def _end(self, pending: Pending, outcome: str, now: float) -> None:
        if self._spans and (span := self._spans.pop(pending.id, None)) is not None:
            if pending.instance is not None:
                span.set_attribute(c.CALLEE, pending.instance.session.name)
            if outcome != "reply":
                span.set_attribute(c.ERROR_TYPE, outcome)
                span.set_status(Status(StatusCode.ERROR))
            span.end()
        Requests._end(self, pending, outcome, now)


class TracedRouter(Router):
    """A router with a span for each event, from the arrival of its frame until it is in every outbox.

    Args:
        heads: decides about the traces of senders that leave none; None when none are begun for them.
        named: as for Router.
    """

    requests_type = TracedRequests
    requests: TracedRequests

    def __init__(self, heads: Heads | None, **named: Any) -> None:
        super().__init__(**named)
        self._heads = heads
        self._tracer = trace.get_tracer(TRACER)
        self._marks = 0

    def receive(self, peer: bytes, frame: bytes, now: float, origin: Origin | None = None) -> None:
        """As Router.receive."""
        session = self._sessions.get(peer)
        if session is not None and session.info.get("traces") == c.FIRST:
            frame_head = frame[:FRAME_HEAD_BYTES]
        else:
            frame_head = frame
        self._marks = frame_head.count(_MARK) if _LENGTHS[0] in frame_head or _LENGTHS[1] in frame_head else 0
        if origin is None:
            Router.receive(self, peer, frame, now)
        else:
            Router.receive(self, peer, frame, now, origin)

    def snapshot(self, now: float) -> Snapshot:
        """As Router.snapshot."""
        snapshot = super().snapshot(now)
        if self._heads is not None:
            snapshot.counters["traces_withheld"] = self._heads.withheld
        return snapshot

    def _welcome(self, session: Session) -> p.Registered:
        welcome = super()._welcome(session)
        if self._heads is not None:
            welcome.limits["traces"] = True
        return welcome

    def _act(self, session: Session, packets: list[Any], now: float) -> bool:
        heads = self._heads
        fresh = heads.among(len(packets)) if heads is not None and not session.info.get("traces") else ()
        self.requests.marked = self._marks > 0 or bool(fresh)
        if not self.requests.marked:
            return Router._act(self, session, packets, now)
        spans = self._begin(packets) if self._marks else []
        for at in fresh:
            self._begin_root(session, packets, at, spans)
        try:
            return Router._act(self, session, packets, now)
        finally:
            for subject, span in spans:
                span.set_attribute(c.DELIVERIES, self.events.audience(subject))
                span.end()
            for span in self.requests.roots.values():
                # It was refused before it began.
                span.end()
            self.requests.roots.clear()

    def _begin(self, packets: list[Any]) -> list[tuple[str, Span]]:
        arrived, begun, marks = time_ns(), [], self._marks
        search = _RECORDED.search
        for packet in packets:
            if type(packet) is p.Publish and search(packet.payload, 0, HEAD_BYTES):
                if (context := _context_of(packet.payload)) is not None:
                    name, attributes = f"{c.ROUTE} {packet.subject}", c.routing(packet.subject)
                    span = self._tracer.start_span(name, context, attributes=attributes, start_time=arrived)
                    begun.append((packet.subject, span))
                # Of hundreds of packets in a frame few are recorded, often only one.
                marks -= 1
                if marks <= 0:
                    break
        return begun

    def _begin_root(self, session: Session, packets: list[Any], at: int, spans: list[tuple[str, Span]]) -> None:
        """Begin a trace for an event or a request whose sender cannot, and tell those who get it."""
        packet = packets[at]
        event = type(packet) is p.Publish
        if not event and type(packet) is not p.Call:
            return
        try:
            headers, body = decode_payload(packet.payload)
        except BusError:
            return
        if c.read_traceparent(headers.get(c.TRACEPARENT)):
            return
        name = packet.subject if event else packet.service
        attributes = c.routing(name) if event else c.calling(name)
        token = chosen.set(True)
        span = self._tracer.start_span(f"{c.ROUTE} {name}", Context(), attributes=attributes)
        chosen.reset(token)
        propagate.inject(headers, trace.set_span_in_context(span, Context()))
        payload = Raw(encode_payload(body, headers))
        packets[at] = replace(packet, payload=payload)
        if event:
            spans.append((name, span))
            # The sender has paid for what it sent, and gets that back.
            grown = len(payload) - len(packet.payload)
            session.outbox.allowance += grown
            session.outbox.consumed -= grown
        else:
            self.requests.roots[packet.ref] = span


def _context_of(payload: Raw | bytes) -> Context | None:
    """The context that a payload was sent in, None when its sender did not record it."""
    if _RECORDED.search(payload, 0, HEAD_BYTES) is None:
        return None
    try:
        headers, _ = decode_payload(payload)
    except BusError:
        return None
    return propagate.extract(headers, Context())
