"""What a session may do, beside what its plugin was granted: reserved names, and names under one's own."""

from __future__ import annotations

from broker.core.sessions import Session
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.subjects import is_reserved

_LIFE_CYCLE = "$plugin."


def check_may_subscribe(session: Session, pattern: str) -> None:
    """Raise BusError `denied` unless this session may see what `pattern` covers."""
    if is_reserved(pattern) and not (session.identity.local or session.identity.operator):
        raise BusError("denied", f"subscribing to {pattern!r} is for the operator: it is reserved")


def check_may_serve(session: Session, service: str) -> None:
    """Raise BusError `denied` unless this session may offer `service`."""
    if session.identity.local or (session.role == "plugin" and service.startswith(session.name + ".")):
        return
    if is_reserved(service):
        raise BusError("denied", f"service {service!r} is reserved for the broker")
    text = f"{session.role} {session.name!r} may not serve {service!r}: plugins serve names under their own"
    raise BusError("denied", f"{text}, such as {session.name}.{service.split('.')[-1]}")


def check_may_call(session: Session, service: str) -> None:
    """Raise BusError `denied` unless this session may call `service`."""
    if not is_reserved(service) or session.identity.local:
        return
    if service.startswith(_LIFE_CYCLE):
        raise BusError("denied", f"calling {service!r} is for the broker only")
    if not session.identity.operator:
        raise BusError("denied", f"calling {service!r} needs the operator key")
