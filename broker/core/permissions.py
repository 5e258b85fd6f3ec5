"""What a session may do: what its plugin was granted, and never what is reserved or under the name of another."""

from __future__ import annotations

from broker.core.sessions import Session
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.subjects import is_reserved

_LIFE_CYCLE = "$plugin."
_LOGS = "$log."


def missing(session: Session, permission: str, name: str) -> BusError:
    """The error for somebody who was not granted what it needs; it names the permission as the files spell it."""
    text = f"{session.role} {session.name!r} lacks the permission '{permission} {name}'"
    return BusError("denied", f"{text}: ask for it in plugin.yaml, or grant it in the operator's file of grants")


def check_may_subscribe(session: Session, pattern: str) -> None:
    """Raise BusError `denied` unless this session may see what `pattern` covers."""
    if is_reserved(pattern):
        if not (session.identity.local or session.identity.operator or _may_read_logs(session, pattern)):
            raise BusError("denied", f"subscribing to {pattern!r} is for the operator: it is reserved")
    elif not session.permissions.may_subscribe(pattern):
        raise missing(session, "event_bus: subscribe", pattern)


def _may_read_logs(session: Session, pattern: str) -> bool:
    # What plugins write may hold secrets: only who was granted it by name, not who is free to do all else.
    granted = session.permissions.subscribe is not None and session.permissions.may_subscribe(pattern)
    return pattern.startswith(_LOGS) and granted


def check_may_serve(session: Session, service: str, holder: Session | None) -> None:
    """Raise BusError `denied` unless this session may offer `service`; `holder` serves it already, if anybody does."""
    if session.identity.local:
        return
    if session.role == "plugin" and service.startswith(session.mount + "."):
        if session.may_offer is not None and not session.may_offer[service]:
            raise missing(session, "services: offer", service)
        if holder is not None and holder.name != session.name:
            # A plugin and one that is mounted on it share the beginning of their names.
            text = f"service {service!r} is served by plugin {holder.name!r} already"
            raise BusError("denied", f"{text}: one of the two must call its service something else")
        return
    if is_reserved(service):
        raise BusError("denied", f"service {service!r} is reserved for the broker")
    text = f"{session.role} {session.name!r} may not serve {service!r}: plugins serve names under {_where(session)}"
    raise BusError("denied", f"{text}, such as {session.mount}.{service.split('.')[-1]}")


def _where(session: Session) -> str:
    return f"the one they are mounted as, {session.mount}" if session.mount != session.name else "their own"


def check_may_call(session: Session, service: str) -> None:
    """Raise BusError `denied` unless this session may call `service`."""
    if not is_reserved(service):
        if session.may_call is not None and not session.may_call[service]:
            raise missing(session, "services: call", service)
        return
    if session.identity.local:
        return
    if service.startswith(_LIFE_CYCLE):
        raise BusError("denied", f"calling {service!r} is for the broker only")
    if not session.identity.operator:
        raise BusError("denied", f"calling {service!r} needs the operator key")
