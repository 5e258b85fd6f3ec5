"""Immutable views of the router for whoever looks: status, metrics, tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker.core.flow import Subscription
from broker.core.sessions import Session


@dataclass(frozen=True, slots=True)
class SubscriptionView:
    """One subscription in force; `dropped` counts events its overflow policy dropped."""

    id: int
    pattern: str
    group: str | None
    overflow: str
    waiting: int
    dropped: int


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service of one session."""

    name: str
    outstanding: int
    served: int
    limit: int


@dataclass(frozen=True, slots=True)
class SessionView:
    """One admitted peer. Times are seconds before the snapshot; sizes are bytes; `waiting`, `dropped` count events.

    `pid` is 0 for a peer whose process the kernel cannot tell; `claimed_pid` is what such a peer says of itself.
    """

    number: int
    name: str
    role: str
    version: str
    instance: str
    proof: str
    transport: str
    pid: int
    claimed_pid: int
    language: str
    sdk: str
    age: float
    silent: float
    subscriptions: tuple[SubscriptionView, ...]
    services: tuple[ServiceView, ...]
    published: int
    dropped: int
    errors: int
    calls: int
    serving: int
    pending_bytes: int
    waiting: int
    waiting_bytes: int
    stats: dict[str, Any]
    routed: bool


@dataclass(frozen=True, slots=True)
class SlowView:
    """Subscriptions of one session, with one overflow policy and bound, that do not keep up.

    `waiting` counts events at the broker, `dropped` those since `secs` seconds ago, when they last kept up;
    `unread_bytes` were sent to the session and not handled; `publishers` names those who wait for it.
    """

    session: int
    name: str
    role: str
    instance: str
    patterns: tuple[str, ...]
    overflow: str
    max_pending: int
    waiting: int
    waiting_bytes: int
    unread_bytes: int
    dropped: int
    secs: float
    publishers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole router at one moment.

    `queued` counts the `requests` that wait for an instance with room; `waiting_bytes` of `max_waiting_bytes` wait for
    all peers together.
    """

    sessions: tuple[SessionView, ...]
    slow: tuple[SlowView, ...]
    requests: int
    queued: int
    retained: int
    waiting_bytes: int
    max_waiting_bytes: int
    counters: dict[str, int]


def view_session(session: Session, now: float) -> SessionView:
    """A frozen copy of what the router knows of a session."""
    return SessionView(
        number=session.number,
        name=session.name,
        role=session.role,
        version=session.version,
        instance=session.instance,
        proof=session.identity.proof,
        transport=session.origin.transport,
        pid=session.pid,
        claimed_pid=0 if session.pid else session.claimed_pid,
        language=session.language,
        sdk=session.sdk,
        age=now - session.opened,
        silent=now - session.last_seen,
        subscriptions=tuple(map(_view_subscription, session.subscriptions.values())),
        services=tuple(
            ServiceView(name, each.outstanding, each.served, each.limit) for name, each in session.instances.items()
        ),
        published=session.published,
        dropped=session.losses.events + sum(each.dropped for each in session.subscriptions.values()),
        errors=session.errors,
        calls=len(session.calls),
        serving=len(session.serving),
        pending_bytes=session.outbox.pending_bytes,
        waiting=session.waiting,
        waiting_bytes=session.waiting_bytes,
        stats=dict(session.stats),
        routed=session.routed,
    )


def _view_subscription(subscription: Subscription) -> SubscriptionView:
    lane = subscription.lane
    return SubscriptionView(
        subscription.id,
        subscription.pattern,
        subscription.group,
        lane.policy,
        len(lane.waiting),
        subscription.dropped,
    )
