"""What a peer that registers is told of its session, or of the one that stands in its way."""

from __future__ import annotations

from broker.core.sessions import Session
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import Limits


def welcome(session: Session, limits: Limits, heartbeat: float) -> p.Registered:
    """The answer to a REGISTER that opened a session; PROTOCOL.md describes what it names."""
    named = {
        "frame_bytes": limits.frame_bytes,
        "packets_per_frame": limits.packets_per_frame,
        "chunk_credit": limits.chunk_credit,
        "pending_requests": limits.pending_requests,
        "subscriptions": limits.subscriptions,
        "services": limits.services,
        "event_credit": limits.event_credit,
    }
    credit, heartbeat_ms = limits.publish_credit, round(heartbeat * 1000)
    granted = session.permissions.narrowed()
    return p.Registered(session.protocol, session.number, heartbeat_ms, credit, session.name, named, granted)


def already_registered(session: Session) -> BusError:
    """One connection carries one session."""
    text = f"this connection is registered already, as {session.role} {session.name!r}"
    return BusError("already_registered", text)


def describe_holder(session: Session) -> str:
    """The process behind a session, and whether that is only its own word."""
    if session.pid:
        return f"process {session.pid}"
    return f"a peer over {session.origin.transport} that calls itself process {session.claimed_pid or 'unknown'}"
