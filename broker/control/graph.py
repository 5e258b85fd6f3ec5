"""The answer to `$broker.graph`: who publishes, subscribes, serves and calls what."""

from __future__ import annotations

from typing import Any

from broker.core.observer import Observed, Pair
from broker.core.snapshot import SessionView, Snapshot


def describe_graph(snapshot: Snapshot, observed: Observed) -> dict[str, Any]:
    """The peers and what binds them, as a map for JSON.

    Subscriptions and services are those in force; what was published and called is what passed in `observed_secs`, with
    how often, and what plugins with permissions did before, with the count 0. The broker itself is left out.

    Args:
        snapshot: from the router.
        observed: from the router.
    """
    peers: dict[str, dict[str, Any]] = {}
    for session in snapshot.sessions:
        if session.proof != "local":
            _add(peers.setdefault(session.name, _empty(session)), session)
    own = {session.name for session in snapshot.sessions if session.proof == "local"}
    return {
        "observed_secs": observed.secs,
        "missed": observed.missed,
        "peers": sorted(peers.values(), key=lambda peer: str(peer["name"])),
        "published": _edges(observed.published, own, "subject"),
        "called": _edges(observed.called, own, "service"),
    }


def _empty(session: SessionView) -> dict[str, Any]:
    return {"name": session.name, "role": session.role, "sessions": 0, "subscribes": [], "serves": []}


def _add(peer: dict[str, Any], session: SessionView) -> None:
    """Several sessions of one name are shown as one peer."""
    peer["sessions"] += 1
    for subscription in session.subscriptions:
        entry = {"pattern": subscription.pattern, "group": subscription.group}
        if entry not in peer["subscribes"]:
            peer["subscribes"].append(entry)
    peer["serves"] = sorted({*peer["serves"], *(service.name for service in session.services)})


def _edges(pairs: dict[Pair, int], own: set[str], what: str) -> list[dict[str, Any]]:
    return [
        {"name": name, what: target, "count": count}
        for (name, target), count in sorted(pairs.items())
        if name not in own
    ]
