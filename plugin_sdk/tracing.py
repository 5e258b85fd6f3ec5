"""A bus that leaves traces: what it says and hears carries W3C trace context, and spans tell what became of it.

Everything here stands beside the bus that leaves none, in subclasses, so that nothing of it is on that one's way.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, aclosing, suppress
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from plugin_sdk.client import DEFAULT_TIMEOUT, Bus, options_of
from plugin_sdk.events import Event, bare_aside
from plugin_sdk.handlers import THREADS, Handler
from plugin_sdk.heads import Hand, Heads, Settled
from plugin_sdk.inlets import Inlets
from plugin_sdk.jobs import Job
from plugin_sdk.options import ServiceOptions, SubscribeOptions
from plugin_sdk.outgoing import pack
from plugin_sdk.peer import Peer
from plugin_sdk.services import Servers, Service
from plugin_sdk.spans import Headers, Spans, context_of, in_hand, is_recorded, links_of, look, note, stamp_logs
from plugin_sdk.subscriptions import Subscription
from plugin_sdk.wire import conventions as c
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_payload
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import EVENT_OVERHEAD, FRAME_TARGET
from plugin_sdk.wire.subjects import check_subject
from plugin_sdk.workers import Workers

Content = tuple[Headers, bytes]
_call = Bus.call
_ENVIRONMENT = (c.TRACEPARENT, c.TRACESTATE, c.BAGGAGE)


class _TracedWorkers(Workers[Any]):
    """Workers in whose context it stands who they are."""

    def _start(self) -> asyncio.Task[None]:
        hand = Hand(self.running)
        hand.task = asyncio.get_running_loop().create_task(self._work(), name=self.name, context=in_hand(hand))
        return hand.task


class _Closing:
    """The part of a peer that closes the gate of a bus with each session, as the next broker may not trace.

    Args:
        close: does so.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    async def restore(self, timeout: float) -> None:
        """The gate opens by itself."""

    def reset(self) -> None:
        """The session is gone."""
        self._close()

    def end(self, error: BusError | None) -> None:
        """There will be none any more, of which reset() was told, too."""


class TracedBus(Bus):
    """A Bus whose publishes, calls and handlers are spans.

    Args:
        peer: the session.
        threads: how many plain handlers may run at once.
        heads: decides about new traces; None when every decision is the OpenTelemetry SDK's.
    """

    def __init__(self, peer: Peer, threads: int = THREADS, heads: Heads | None = None) -> None:
        super().__init__(peer, threads)
        # Whoever says nothing has its traces begun by the broker. In whole frames it looks for those of a process that
        # may record everything, as each of its events would be a frame of its own.
        self._records_first = heads is not None and heads.ratio < 1
        peer.profile.info["traces"] = c.FIRST if self._records_first else True
        self.spans = Spans(peer, heads)
        self._ahead = heads or Heads(1.0)
        self._closed: Iterator[object] = iter(())
        self._gate: Iterator[object] = self._closed
        peer.add_part(_Closing(self._close_gate), {})
        stamp_logs(heads)

    @property
    def traces_withheld(self) -> int:
        """As Bus.traces_withheld."""
        return self._ahead.withheld

    async def open(self) -> None:
        """As Bus.open; of a plugin it is a span, in the trace of whoever started its process."""
        profile = self._peer.profile
        if profile.role != "plugin":
            await super().open()
            return
        environment = {name: os.environ[name.upper()] for name in _ENVIRONMENT if name.upper() in os.environ}
        if not is_recorded(environment):
            await super().open()
            return
        context = context_of(environment)
        with self.spans.hearing("register", SpanKind.INTERNAL, {c.PLUGIN: profile.name}, context):
            await super().open()

    def _close_gate(self) -> None:
        self._gate = self._closed

    async def _publish_traced(self, subject: str, data: Any, headers: Headers | None, retain: bool) -> None:
        is_drawn = False
        if headers is None and next(self._gate, True) is True:
            # The gate draws for what carries nothing. All else comes here in any case, and would be drawn by it once
            # when it arrived, once now, and once more by begin(); what it has taken from the gate changes no chances.
            is_drawn = self._gate is not self._closed and not look(None)
            if self._peer.is_open and self._peer.traces and self.spans.heads is not None:
                self._gate = self.spans.heads.gate(look)
        passed = self.spans.passed_on(headers, is_drawn)
        if passed is not None:
            await self.publish(subject, data, headers=passed, retain=retain)
            return
        attributes = c.publishing(subject)
        if headers and "message-id" in headers:
            attributes[c.MESSAGE_ID] = headers["message-id"]
        with self.spans.saying(f"{c.SEND} {subject}", SpanKind.PRODUCER, attributes, headers) as carrier:
            if self._records_first and is_recorded(carrier):
                await self._publish_first(subject, data, carrier, retain)
            else:
                await self.publish(subject, data, headers=Settled(carrier), retain=retain)

    async def _publish_first(self, subject: str, data: Any, headers: Headers, retain: bool) -> None:
        """As Bus.publish; the event begins a frame, where the broker looks for what is recorded."""
        payload = pack(data, headers, subject, self._peer.max_payload)
        packet = self._head(subject, retain) + payload
        out = self._out
        if out.outbox.allowance <= 0:
            await self._peer.may_publish()
        outbox = out.outbox
        outbox.seal()
        outbox.allowance -= len(payload) + EVENT_OVERHEAD
        outbox.add(packet)
        out.plan_flush()
        if outbox.pending_bytes > FRAME_TARGET:
            # As in Bus.publish, where the frame that is being gathered is all that waits.
            out.flush()
            await asyncio.sleep(0)

    def call(
        self,
        service: str,
        args: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        wait_ready: float = 0.0,
        headers: Headers | None = None,
        to: int | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """As Bus.call."""
        ahead = self._ahead
        if ahead.left >= 1.0 and headers is None and not look(None) and self._peer.traces:
            ahead.left -= 1.0
            return _call(self, service, args, timeout=timeout, wait_ready=wait_ready, to=to)
        passed = self.spans.passed_on(headers)
        if passed is None:
            return self._call(service, args, headers, timeout=timeout, wait_ready=wait_ready, to=to)
        return Bus.call(self, service, args, timeout=timeout, wait_ready=wait_ready, headers=passed, to=to)

    async def _call(self, service: str, args: Any, headers: Headers | None, **how: Any) -> Any:
        with self.spans.saying(service, SpanKind.CLIENT, c.calling(service), headers) as carrier:
            return await Bus.call(self, service, args, headers=carrier, **how)

    async def stream(
        self,
        service: str,
        args: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        wait_ready: float = 0.0,
        headers: Headers | None = None,
    ) -> AsyncGenerator[Any, None]:
        """As Bus.stream."""
        how = {"timeout": timeout, "wait_ready": wait_ready}
        with ExitStack() as span:
            carrier: Headers | None = self.spans.passed_on(headers)
            if carrier is None:
                saying = self.spans.saying(service, SpanKind.CLIENT, c.calling(service), headers)
                carrier = span.enter_context(saying)
            async with aclosing(Bus.stream(self, service, args, headers=carrier, **how)) as pieces:
                async for piece in pieces:
                    yield piece

    def _call_packet(self, ref: int, service: str, args: Any, headers: Headers | None, *rest: Any) -> p.Call:
        packet = super()._call_packet(ref, service, args, headers, *rest)
        if self._records_first and headers and is_recorded(headers):
            self._out.outbox.seal()
        return packet

    def subscribe(
        self, pattern: str, handler: Handler | None = None, *, options: SubscribeOptions | None = None, **how: Any
    ) -> Subscription:
        """As Bus.subscribe."""
        options = options_of(SubscribeOptions, options, how)
        return _TracedSubscription(self._inlets, pattern, handler, options, self.spans)

    async def serve(self, service: str, handler: Handler, *, options: ServiceOptions | None = None, **how: Any) -> None:
        """As Bus.serve."""
        check_subject(service)
        options = options_of(ServiceOptions, options, how)
        await self._servers.add(_TracedService(self._servers, service, handler, options, self.spans))

    def serve_unannounced(self, service: str, handler: Handler) -> None:
        """As Bus.serve_unannounced."""
        made = _TracedService(self._servers, service, handler, ServiceOptions(), self.spans)
        self._servers.add_unannounced(made)


class _TracedSubscription(Subscription):
    workers_type = _TracedWorkers

    def __init__(
        self,
        inlets: Inlets[Subscription],
        pattern: str,
        handler: Handler | None,
        options: SubscribeOptions,
        spans: Spans,
    ) -> None:
        self._spans = spans
        self._received = c.consuming(c.RECEIVE, pattern, options.group)
        self._processed = c.consuming(c.PROCESS, pattern, options.group)
        super().__init__(inlets, pattern, handler, options)

    def _make_workers(self, name: str) -> Workers[Event]:
        self._run: Callable[..., Awaitable[Any]] = self._call
        if self.options.batch:
            self._call = self._take_up_batch
        elif self._spans.heads is None or self._keep is not None:
            # A filter has decoded the event already.
            self._call = self._take_up
        else:
            # Nearly all of them have nothing to say of a trace: this is Spans.taken_up, written out for these.
            self._call = bare_aside(self._run, self._take_up, self._spans.peer)
        return super()._make_workers(name)

    async def __anext__(self) -> Event:
        event = await super().__anext__()
        with suppress(BusError):
            if is_recorded(event.headers):
                self._receive(event)
        return event

    def _receive(self, event: Event) -> None:
        """What becomes of an event that an iterator hands out is not known: its span only tells that it arrived."""
        context = context_of(event.headers)
        attributes = {**self._received, c.DESTINATION: event.subject}
        name = f"{c.RECEIVE} {self.pattern}"
        self._spans.begin(name, SpanKind.CLIENT, attributes, context, links_of([context])).end()

    def _take_up(self, event: Event) -> Awaitable[Any]:
        try:
            headers, _ = event.content()
        except BusError:
            # The handler is told so if it looks at them.
            headers = {}
        given = self._spans.taken_up(headers)
        return self._run(event) if given is None else self._process(event, given)

    async def _process(self, event: Event, given: Headers) -> None:
        context = context_of(given)
        attributes = {**self._processed, c.DESTINATION: event.subject}
        if message := given.get("message-id"):
            attributes[c.MESSAGE_ID] = message
        # The event is the cause and nothing else is, so it is the parent; the link is what the conventions ask for.
        links = links_of([context])
        with self._spans.hearing(f"{c.PROCESS} {self.pattern}", SpanKind.CONSUMER, attributes, context, links):
            await self._run(event)

    def _take_up_batch(self, events: list[Event]) -> Awaitable[Any]:
        every = [headers for event in events if (headers := _headers(event))]
        recorded = next(filter(is_recorded, every), None)
        parent = (recorded or next(iter(every), {})).get(c.TRACEPARENT)
        given = self._spans.taken_up({c.TRACEPARENT: parent} if parent else {})
        return self._run(events) if given is None else self._process_batch(events, every)

    async def _process_batch(self, events: list[Event], every: list[Headers]) -> None:
        contexts = [context_of(headers) for headers in every]
        # One event has caused what several have not: they are linked only.
        context = contexts[0] if len(events) == len(contexts) == 1 else Context()
        attributes: dict[str, Any] = {**self._processed, c.BATCH_COUNT: len(events)}
        subjects = {event.subject for event in events}
        if len(subjects) == 1:
            attributes[c.DESTINATION] = subjects.pop()
        name, links = f"{c.PROCESS} {self.pattern}", links_of(contexts)
        with self._spans.hearing(name, SpanKind.CONSUMER, attributes, context, links):
            await self._run(events)


class _TracedService(Service):
    workers_type = _TracedWorkers

    def __init__(self, servers: Servers, name: str, handler: Handler, options: ServiceOptions, spans: Spans) -> None:
        self._spans = spans
        self._peer, self._quiet = spans.peer, spans.heads is not None
        super().__init__(servers, name, handler, options)

    def _handle(self, job: Job, content: Content | None = None) -> Coroutine[Any, Any, int]:
        try:
            content = decode_payload(job.payload)
        except BusError:
            # The caller is told so by the service.
            return Service._handle(self, job)
        if not content[0] and self._quiet and self._peer.traces:
            # Nearly all of them, with nothing else to do: this is Spans.taken_up, written out.
            return Service._handle(self, job, content)
        given = self._spans.taken_up(content[0])
        return Service._handle(self, job, content) if given is None else self._serve(job, content, given)

    async def _serve(self, job: Job, content: Content, given: Headers) -> int:
        attributes = c.calling(self.name)
        with self._spans.hearing(self.name, SpanKind.SERVER, attributes, context_of(given)) as span:
            handled = await Service._handle(self, job, content)
            if job.cancelled:
                note(span, asyncio.CancelledError())
            return handled


def _headers(event: Event) -> Headers:
    try:
        return event.headers
    except BusError:
        return {}
