"""The beginning of a session: its record, the answer to REGISTER, what is told of it, and why there is none."""

from __future__ import annotations

from broker.core.admission import Refusal
from broker.core.notices import SessionOpened
from broker.core.sessions import Identity, Origin, Session
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import Limits
from plugin_sdk.wire.outbox import Outbox


def make_session(
    number: int, register: p.Register, version: int, identity: Identity, origin: Origin, outbox: Outbox, now: float
) -> Session:
    """Make the record of a peer that was admitted.

    Args:
        number: what every frame of the session carries.
        register: what it says of itself.
        version: of the protocol that both speak.
        identity: who it is.
        origin: what the transport knows of it.
        outbox: where what it is sent is put.
        now: seconds of the router's clock.
    """
    claimed = _whole(register.info.get("pid"))
    return Session(
        number=number,
        peer=outbox.peer,
        role=register.role,
        version=identity.version or register.version,
        instance=register.instance,
        nonce=register.nonce,
        pid=origin.pid or (claimed if identity.local else 0),
        claimed_pid=claimed,
        language=register.language,
        sdk=register.sdk,
        identity=identity,
        origin=origin,
        protocol=version,
        opened=now,
        outbox=outbox,
        last_seen=now,
        token=(register.token or "") if identity.proof == "managed" else "",
        info=register.info,
        declared=tuple(register.services),
        routed=identity.routed,
    )


def welcome(session: Session, limits: Limits, heartbeat: float) -> p.Registered:
    """The answer that tells a peer what it was granted.

    Args:
        session: its own.
        limits: every bound.
        heartbeat: seconds after which it is pinged when it is silent.
    """
    told = {
        "frame_bytes": limits.frame_bytes,
        "packets_per_frame": limits.packets_per_frame,
        "chunk_credit": limits.chunk_credit,
        "pending_requests": limits.pending_requests,
        "subscriptions": limits.subscriptions,
        "services": limits.services,
        "event_credit": limits.event_credit,
    }
    granted = session.permissions.narrowed()
    heartbeat_ms = round(heartbeat * 1000)
    return p.Registered(
        session.protocol, session.number, heartbeat_ms, limits.publish_credit, session.name, told, granted
    )


def opened(session: Session) -> SessionOpened:
    """What the daemon is told of a session that has begun."""
    return SessionOpened(
        session.number,
        session.name,
        session.role,
        session.identity.proof,
        session.pid,
        session.version,
        session.token,
        str(session.info.get("state", ""))[:64],
    )


def already_registered(session: Session) -> BusError:
    """A REGISTER over a connection that has a session."""
    text = f"this connection is registered already, as {session.role} {session.name!r}"
    return BusError("already_registered", text)


def duplicate_name(holder: Session) -> Refusal:
    """A REGISTER under the name of another session."""
    text = (
        f"plugin {holder.name!r} is registered already by {_whose(holder)}"
        " (stop that one first, or give this one an instance name)"
    )
    return Refusal("duplicate_name", text)


def _whose(session: Session) -> str:
    """The process behind a session, and whether that is only its own word."""
    if session.pid:
        return f"process {session.pid}"
    return f"a peer over {session.origin.transport} that calls itself process {session.claimed_pid or 'unknown'}"


def _whole(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
