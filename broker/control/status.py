"""The answer to `$broker.status`: supervisor, router and store seen together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.control.ports import PluginFacts
from broker.core.snapshot import SessionView, Snapshot

REGISTRATION = ("unregistered", "registering", "registered", "failed")
SILENT_BEATS = 3  # heartbeats without a word after which a plugin is called unresponsive


def describe_plugins(facts: Sequence[PluginFacts], snapshot: Snapshot, heartbeat: float) -> list[dict[str, Any]]:
    """Every plugin as a map for JSON, by name; other instances of one plugin follow it.

    Args:
        facts: from the supervisor.
        snapshot: from the router.
        heartbeat: seconds between two heartbeats.
    """
    sessions = {each.number: each for each in snapshot.sessions}
    rows = [_describe(each, sessions.pop(each.session or 0, None), heartbeat) for each in facts]
    rows += [_further_instance(each, heartbeat) for each in sessions.values() if each.role == "plugin"]
    return sorted(rows, key=lambda row: (row["name"], row["instance"]))


def _describe(facts: PluginFacts, session: SessionView | None, heartbeat: float) -> dict[str, Any]:
    return {
        "name": facts.name,
        "instance": session.instance if session else "",
        "version": facts.version,
        "description": facts.description,
        "state": facts.state,
        "desired": facts.desired,
        "registration": REGISTRATION[facts.register_status],
        "managed": facts.managed,
        "enabled": facts.enabled,
        "pid": facts.pid or (session.pid if session else 0) or None,
        "uptime_secs": facts.since,
        "restarts": facts.restarts,
        "error": facts.error,
        "last_exit": facts.last_exit,
        "requires": list(facts.requires),
        "log_lines_dropped": facts.log_dropped,
        "confinement": {"asked": dict(facts.asked), "in_force": facts.in_force},
        **_describe_session(session, heartbeat),
    }


def _further_instance(session: SessionView, heartbeat: float) -> dict[str, Any]:
    return {
        "name": session.name,
        "instance": session.instance,
        "version": session.version,
        "description": "",
        "state": "running",
        "desired": "running",
        "registration": "registered",
        "managed": False,
        "enabled": True,
        "pid": session.pid or None,
        "uptime_secs": session.age,
        "restarts": 0,
        "error": "",
        "last_exit": "",
        "requires": [],
        "log_lines_dropped": 0,
        "confinement": {"asked": {}, "in_force": None},
        **_describe_session(session, heartbeat),
    }


def _describe_session(session: SessionView | None, heartbeat: float) -> dict[str, Any]:
    """What only a registered plugin has; the same names with nothing in them otherwise."""
    if session is None:
        return {
            "session": None,
            "claimed_pid": None,
            "proof": "",
            "transport": "",
            "language": "",
            "services": [],
            "subscriptions": [],
            "published": 0,
            "silent_secs": None,
            "silent_limit_secs": SILENT_BEATS * heartbeat,
            "waiting_bytes": 0,
            "stats": {},
        }
    return {
        "session": session.number,
        "claimed_pid": session.claimed_pid or None,
        "proof": session.proof,
        "transport": session.transport,
        "language": session.language,
        "services": [
            {"name": each.name, "outstanding": each.outstanding, "served": each.served, "limit": each.limit}
            for each in session.services
        ],
        "subscriptions": [
            {
                "pattern": each.pattern,
                "group": each.group,
                "overflow": each.overflow,
                "waiting": each.waiting,
                "dropped": each.dropped,
            }
            for each in session.subscriptions
        ],
        "published": session.published,
        "silent_secs": session.silent,
        "silent_limit_secs": SILENT_BEATS * heartbeat,
        "waiting_bytes": session.waiting_bytes,
        "stats": session.stats,
    }
