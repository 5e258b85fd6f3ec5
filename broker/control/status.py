"""The answer to `$broker.status`: supervisor, router and store seen together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from broker.control.figures import figures_of, usage_of
from broker.control.health import SILENT_BEATS, judge
from broker.control.ports import PluginFacts
from broker.control.slow import is_slow
from broker.core.snapshot import SessionView, Snapshot

REGISTRATION = ("unregistered", "registering", "registered", "failed")


def describe_plugins(facts: Sequence[PluginFacts], snapshot: Snapshot, heartbeat: float) -> list[dict[str, Any]]:
    """Every plugin as a map for JSON, by name; other instances of one plugin follow it.

    Args:
        facts: from the supervisor.
        snapshot: from the router.
        heartbeat: seconds between two heartbeats.
    """
    sessions = {each.number: each for each in snapshot.sessions}
    serving = {each.name: sessions.get(each.session or 0) for each in facts}
    rows = [_describe(each, sessions.pop(each.session or 0, None), heartbeat) for each in facts]
    further = [each for each in sessions.values() if each.role == "plugin"]
    rows += [_further_instance(each, serving.get(each.name), heartbeat) for each in further]
    slow = {each.session for each in snapshot.slow if is_slow(each)}
    sub_plugins = _by_parent(facts)
    for row in rows:
        row["slow"] = row["session"] in slow
        row["sub_plugins"] = sub_plugins.get(row["name"], [])
    return sorted(rows, key=lambda row: (row["name"], row["instance"]))


def _by_parent(facts: Sequence[PluginFacts]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for each in facts:
        # Of a chain of names, the last is its own.
        found[each.mount.rpartition(".")[0].rpartition(".")[2]].append(each.name)
    return {parent: sorted(names) for parent, names in found.items()}


def _describe(facts: PluginFacts, session: SessionView | None, heartbeat: float) -> dict[str, Any]:
    return {
        "name": facts.name,
        "instance": session.instance if session else "",
        "version": facts.version,
        "description": facts.description,
        "state": facts.state,
        "desired": facts.desired,
        "registration": REGISTRATION[facts.register_status],
        "register_status": facts.register_status,
        "managed": facts.managed,
        "enabled": facts.enabled,
        "pid": facts.pid or (session.pid if session else 0) or None,
        "uptime_secs": facts.uptime,
        "since_secs": facts.since,
        "restarts": facts.restarts,
        "error": facts.error,
        "note": facts.note or _drained(facts, session),
        "over_limits": list(facts.over),
        "exceeded": dict(facts.exceeded),
        "quarantine": [
            {"version": each.version, "digest": each.digest, "since": each.since.isoformat(), "reason": each.reason}
            for each in facts.quarantine
        ],
        "last_exit": facts.last_exit,
        "requires": list(facts.requires),
        "parent": facts.parent,
        "mount": facts.mount,
        "log_lines_dropped": facts.log_dropped,
        "confinement": {"asked": dict(facts.asked), "in_force": facts.in_force},
        **_describe_session(session, heartbeat),
    }


def _drained(facts: PluginFacts, session: SessionView | None) -> str:
    drained = session is not None and not session.routed and facts.state == "running"
    return "drained: it gets nothing new" if drained else ""


def _further_state(session: SessionView, serving: SessionView | None) -> str:
    """Of a session that is not its plugin's own: `serving` is."""
    if session.routed:
        return "running"
    if serving is not None and not serving.routed:
        return "drained"
    # In an upgrade the new version registers after the old one, whichever of the two serves.
    return "leaving" if serving is not None and session.age > serving.age else "standby"


def _further_instance(session: SessionView, serving: SessionView | None, heartbeat: float) -> dict[str, Any]:
    return {
        "name": session.name,
        "instance": session.instance,
        "version": session.version,
        "description": "",
        "state": _further_state(session, serving),
        "desired": "running",
        "registration": "registered",
        "register_status": REGISTRATION.index("registered"),
        "managed": False,
        "enabled": True,
        "pid": session.pid or None,
        "uptime_secs": session.age,
        "since_secs": session.age,
        "restarts": 0,
        "error": "",
        "note": "",
        "over_limits": [],
        "exceeded": {},
        "quarantine": [],
        "last_exit": "",
        "requires": [],
        "parent": "",
        "mount": session.name,
        "log_lines_dropped": 0,
        "confinement": {"asked": {}, "in_force": None},
        **_describe_session(session, heartbeat),
    }


def _describe_session(session: SessionView | None, heartbeat: float) -> dict[str, Any]:
    """What only a registered plugin has; the same names with nothing in them otherwise."""
    if session is None:
        return {
            "session": None,
            "routed": False,
            "health": "",
            "claimed_pid": None,
            "proof": "",
            "transport": "",
            "language": "",
            "services": [],
            "subscriptions": [],
            "published": 0,
            "dropped": 0,
            "refused": 0,
            "silent_secs": None,
            "silent_limit_secs": SILENT_BEATS * heartbeat,
            "waiting": 0,
            "waiting_bytes": 0,
            "figures": figures_of(None),
            **usage_of(None),
        }
    return {
        "session": session.number,
        "routed": session.routed,
        "health": judge(session, heartbeat).text,
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
        "dropped": session.dropped,
        "refused": session.errors,
        "silent_secs": session.silent,
        "silent_limit_secs": SILENT_BEATS * heartbeat,
        "waiting": session.waiting,
        "waiting_bytes": session.waiting_bytes,
        "figures": figures_of(session),
        **usage_of(None),
    }
