"""How traces look: headers by W3C Trace Context, names and attributes by OpenTelemetry's conventions.

The conventions for messaging and RPC (opentelemetry.io/docs/specs/semconv, version 1.44) may still change; nothing
outside of this file spells one of their names.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# W3C Trace Context and W3C Baggage; the environment of a child process has the same names in capitals.
TRACEPARENT, TRACESTATE, BAGGAGE = "traceparent", "tracestate", "baggage"

# In the `info` of a peer that begins its own traces, and a frame with each event or request that it records.
FIRST = "first"

SYSTEM = "plugmesh"
SEND, PROCESS, RECEIVE, ROUTE = "send", "process", "receive", "route"

ERROR_TYPE = "error.type"
MESSAGING_SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
DESTINATION_TEMPLATE = "messaging.destination.template"
CONSUMER_GROUP = "messaging.consumer.group.name"
MESSAGE_ID = "messaging.message.id"
BATCH_COUNT = "messaging.batch.message_count"
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
# In the versions after 1.44 it is called rpc.status_code.
RPC_STATUS = "rpc.response.status_code"

# What the conventions have no name for.
PLUGIN = "plugmesh.plugin"
PHASE = "plugmesh.phase"
ATTEMPT = "plugmesh.attempt"
DELIVERIES = "plugmesh.deliveries"
CALLEE = "plugmesh.callee"

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class Parent(NamedTuple):
    """The contents of a traceparent: ids as lower-case hexadecimal digits."""

    trace_id: str
    span_id: str
    sampled: bool


def read_traceparent(value: str | None) -> Parent | None:
    """What a traceparent says, None when it is missing or breaks the grammar of W3C Trace Context section 3.2."""
    found = _TRACEPARENT.fullmatch(value) if value else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & 1))


def publishing(subject: str) -> dict[str, str]:
    """Attributes of the span of a publish."""
    return {MESSAGING_SYSTEM: SYSTEM, OPERATION_NAME: SEND, OPERATION_TYPE: SEND, DESTINATION: subject}


def consuming(operation: str, pattern: str, group: str | None) -> dict[str, str]:
    """Attributes that all spans of one subscription share; each adds its destination.

    Args:
        operation: PROCESS or RECEIVE.
        pattern: what was subscribed to.
        group: the queue group, if any.
    """
    attributes = {MESSAGING_SYSTEM: SYSTEM, OPERATION_NAME: operation, OPERATION_TYPE: operation}
    if "*" in pattern or ">" in pattern:
        attributes[DESTINATION_TEMPLATE] = pattern
    if group is not None:
        attributes[CONSUMER_GROUP] = group
    return attributes


def routing(subject: str) -> dict[str, str]:
    """Attributes of the broker's span of an event."""
    return {MESSAGING_SYSTEM: SYSTEM, OPERATION_NAME: ROUTE, DESTINATION: subject}


def calling(service: str) -> dict[str, str]:
    """Attributes of both spans of a request."""
    return {RPC_SYSTEM: SYSTEM, RPC_METHOD: service}
