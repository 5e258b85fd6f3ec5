"""Spans of what a session does, by the OpenTelemetry API; imported only where traces are wanted."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, create_key, detach, get_current
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode

from plugin_sdk.heads import Hand, Heads, Settled, chosen
from plugin_sdk.peer import Peer
from plugin_sdk.wire import conventions as c
from plugin_sdk.wire.errors import BusError

# A traceparent of version 00, and the flags of a trace that is not recorded. This much is looked at in every event.
_LENGTH, _NOT_RECORDED = 55, ("-00", "-02")

_NO_HEADERS = Settled()
_UNASKED = Heads(0.0)

Headers = dict[str, str]


def _quickest() -> Callable[[object], Context | None]:
    """What get_current() does, in a tenth of the time: to ask the variable itself in which the context is kept."""
    mark = Context({"plugmesh": True})
    attach(mark)
    found = next((each for each, value in contextvars.copy_context().items() if value is mark), None)
    if found is None or contextvars.Context().run(found.get, None):
        return lambda _: get_current()
    return found.get


# Given None, the current context; false when there is nothing in it.
look: Callable[[object], Context | None] = contextvars.Context().run(_quickest)
_NOTHING = Context()


def carried() -> Context:
    """The current context."""
    return look(None) or _NOTHING


# What is not recorded is done in a context in which the worker is that does it, and nothing else.
_HAND = create_key("plugmesh-hand")


def unrecorded() -> Hand | None:
    """The worker whose item in hand this is part of, if that is not recorded."""
    hand = carried().get(_HAND)
    return hand if isinstance(hand, Hand) and hand.is_mine() else None


def in_hand(hand: Hand) -> contextvars.Context:
    """The context for the task of a worker."""
    context = contextvars.copy_context()
    # Whatever span was current where a frame was read, it is nobody's.
    context.run(attach, Context({_HAND: hand}))
    return context


class Spans:
    """Begins spans, and says of which work there is none.

    Args:
        peer: the session.
        heads: decides about new traces; None when every decision is the OpenTelemetry SDK's.
    """

    def __init__(self, peer: Peer, heads: Heads | None) -> None:
        self.peer = peer
        self.heads = heads
        self._tracer = trace.get_tracer("plugmesh")

    def passed_on(self, headers: Headers | None, is_drawn: bool = False) -> Settled | None:
        """The headers for something said in a trace that is not recorded; None when a span must be begun for it.

        Args:
            headers: those to be sent with it.
            is_drawn: if it begins a trace, that one was drawn already, as one to be recorded.
        """
        if headers and c.read_traceparent(headers.get(c.TRACEPARENT)):
            return None
        context = carried()
        if len(context) > (_HAND in context) and _present():
            return None
        hand, heads, parent = unrecorded(), self.heads, None
        if hand is not None:
            parent = hand.parent
        elif heads is None or (heads.affords() if is_drawn else heads.begin()):
            return None
        elif not (self.peer.is_open and self.peer.traces):
            # Without a session it waits for the next one, with a broker that may not trace.
            parent = heads.unrecorded_parent()
        if parent is None:
            return Settled(headers) if headers else _NO_HEADERS
        return Settled({**(headers or {}), c.TRACEPARENT: parent})

    def taken_up(self, headers: Headers) -> Headers | None:
        """Begin with something heard: the headers to begin a span with, None when there is to be none.

        Args:
            headers: what was sent with it.
        """
        parent = headers.get(c.TRACEPARENT)
        quick = parent is not None and len(parent) == _LENGTH and parent[:3] == "00-" and parent[-3:] in _NOT_RECORDED
        if not quick and c.read_traceparent(parent) is None:
            return self._begun(headers)
        heads = self.heads
        # What else is carried has to be carried on, which takes a context.
        if not quick or heads is None or not heads.obedient or c.BAGGAGE in headers or c.TRACESTATE in headers:
            return headers
        _note(parent)
        return None

    def _begun(self, headers: Headers) -> Headers | None:
        """Whoever sent it said nothing of a trace."""
        heads = self.heads
        if not self.peer.traces and (heads is None or heads.begin()):
            return headers
        if heads is None or c.BAGGAGE in headers:
            # It was decided already, which a sampler of the program's own has to be told.
            return {**headers, c.TRACEPARENT: (heads or _UNASKED).unrecorded_parent()}
        if not self.peer.traces:
            _note(heads.unrecorded_parent())
        return None

    def begin(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        """A span that its caller ends.

        Args:
            name: what it is called.
            kind: by the conventions.
            attributes: what is known of it now.
            context: of its parent; the current one when not given.
            links: what else led to it.
        """
        context = _present() if context is None else context
        # For a root, passed_on() or taken_up() has found that it must be recorded.
        root = not trace.get_current_span(context).get_span_context().is_valid
        token = chosen.set(self.heads is not None and root and unrecorded() is None)
        try:
            return self._tracer.start_span(name, context, kind, attributes, links)
        finally:
            chosen.reset(token)

    @contextmanager
    def saying(
        self, name: str, kind: SpanKind, attributes: Mapping[str, Any], headers: Headers | None
    ) -> Iterator[dict[str, str]]:
        """A span around something that is said; gives the headers to say it with."""
        given = headers is not None and c.read_traceparent(headers.get(c.TRACEPARENT))
        context = context_of(headers) if headers is not None and given else None
        span = self.begin(name, kind, attributes, context)
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span, context))
        try:
            # Before all others: the broker does not look far.
            yield {**carrier, **headers, **carrier} if headers else carrier
        except BaseException as error:
            note(span, error)
            raise
        finally:
            span.end()

    @contextmanager
    def hearing(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        context: Context,
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        """A span around the handling of something that was heard; it is the current one meanwhile."""
        token = attach(context)
        span = self.begin(name, kind, attributes, context, links)
        attach(trace.set_span_in_context(span, context))
        try:
            yield span
        except BaseException as error:
            note(span, error)
            raise
        finally:
            detach(token)
            span.end()


def _note(parent: str | None) -> None:
    """Say what the traceparent of the item in hand is."""
    hand = carried().get(_HAND)
    if isinstance(hand, Hand) and parent is not None:
        hand.note(parent)


def _present() -> Context:
    """The current context, unless its span has ended: a task that outlives what began it goes on on its own account."""
    context = carried()
    return Context() if context and has_ended(trace.get_current_span(context)) else context


def has_ended(span: Span) -> bool:
    """Whether a span of this process that was recorded is over."""
    context = span.get_span_context()
    return context.trace_flags.sampled and not context.is_remote and not span.is_recording()


def context_of(headers: Headers) -> Context:
    """The context in which something was said: for spans of your own about an event that an iterator gave you."""
    return propagate.extract(headers, Context())


def links_of(contexts: Sequence[Context]) -> list[Link]:
    """A link to each of them that is of a trace."""
    found = [trace.get_current_span(context).get_span_context() for context in contexts]
    return [Link(each) for each in found if each.is_valid]


def is_recorded(headers: Headers) -> bool:
    """Whether the sender recorded it."""
    parent = c.read_traceparent(headers.get(c.TRACEPARENT))
    return parent is not None and parent.sampled


def note(span: Span, error: BaseException) -> None:
    """What went wrong, on a span."""
    if isinstance(error, BusError):
        code, text = error.code, error.text
        span.set_attribute(c.RPC_STATUS, code)
    elif isinstance(error, asyncio.CancelledError | GeneratorExit):
        code, text = "cancelled", "cancelled"
    else:
        code, text = type(error).__name__, str(error)
        span.record_exception(error)
    span.set_attribute(c.ERROR_TYPE, code)
    span.set_status(Status(StatusCode.ERROR, text[:500]))


def current_ids() -> tuple[str, str] | None:
    """Trace id and span id of what this task works for, recorded or not.

    What is not recorded and came without gets them now, and passes them on with what it says from now on.
    """
    context: SpanContext = trace.get_current_span().get_span_context()
    if context.is_valid:
        return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    hand = unrecorded()
    if hand is None:
        return None
    if hand.parent is None:
        hand.note(_naming.unrecorded_parent())
    parent = c.read_traceparent(hand.parent)
    return (parent.trace_id, parent.span_id) if parent else None


_naming = _UNASKED
_stamping = False


def stamp_logs(heads: Heads | None) -> None:
    """Give every log record of this process, from now on, `trace_id` and `span_id`, and both as text in `trace`.

    Args:
        heads: makes ids for what has none.
    """
    global _naming, _stamping
    _naming = heads or _UNASKED
    if _stamping:
        return
    _stamping = True
    make: Callable[..., logging.LogRecord] = logging.getLogRecordFactory()

    def stamped(*args: Any, **named: Any) -> logging.LogRecord:
        record = make(*args, **named)
        ids = current_ids()
        if ids is not None:
            record.trace_id, record.span_id = ids
            record.trace = f" trace_id={ids[0]} span_id={ids[1]}"
        return record

    logging.setLogRecordFactory(stamped)
