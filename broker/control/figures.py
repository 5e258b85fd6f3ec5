"""Figures of plugins and of the whole broker, in the form in which `$broker.status` tells them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from broker.control.ports import Measured, Usage, Work
from broker.control.slow import is_slow
from broker.core.snapshot import SessionView, Snapshot

COUNTS = (
    "events_handled",
    "events_failed",
    "events_filtered",
    "requests_handled",
    "requests_failed",
    "traces_withheld",
)
WINDOW_SECS = 60.0  # over so long a time at most events per second are an average
LARGEST = float(1 << 53)  # sums and products of such numbers are still finite, and a double can count so far
SHORTEST_SECS = 1.0  # two looks that are closer than this tell nothing about a rate


def figures_of(session: SessionView | None) -> dict[str, Any]:
    """What a plugin says of its handlers, whatever language it is written in, as numbers that can be relied on."""
    said = session.stats if session else {}
    found: dict[str, Any] = {name: int(_number(said.get(name))) for name in COUNTS}
    handled = found["events_handled"] + found["requests_handled"]
    failed = found["events_failed"] + found["requests_failed"]
    runs = handled + failed
    spent = _number(said.get("handling_secs")) or _number(said.get("mean_secs")) * runs
    return found | {
        "events_received": found["events_handled"] + found["events_failed"] + found["events_filtered"],
        "events_waiting": int(_number(said.get("events_waiting"))),
        "handling_secs": spent,
        "mean_secs": spent / runs if runs else 0.0,
        "longest_secs": _number(said.get("longest_secs")),
        "error_rate": failed / runs if runs else 0.0,
        "busy_secs": _number(said.get("busy_secs")),
        "busy_in": str(said.get("busy_in") or "")[:256],
    }


def usage_of(usage: Usage | None) -> dict[str, Any]:
    """What a plugin's processes use; nothing is known of processes on other machines."""
    if usage is None:
        return {"memory_bytes": None, "cpu_secs": None, "threads": None, "processes": None}
    return {
        "memory_bytes": usage.memory_bytes,
        "cpu_secs": usage.cpu_secs,
        "threads": usage.threads,
        "processes": usage.processes,
    }


def totals(snapshot: Snapshot, rows: Sequence[Mapping[str, Any]], work: Work) -> dict[str, Any]:
    """What is counted over all plugins and sessions.

    Args:
        snapshot: from the router.
        rows: the plugins as `describe_plugins` gives them.
        work: from the supervisor.
    """
    states = [row["state"] for row in rows]
    return {
        "sessions": len(snapshot.sessions),
        "plugins": {"total": len(rows), "running": states.count("running"), "failed": states.count("failed")},
        "queues": {
            "events": sum(each.waiting for each in snapshot.sessions),
            "event_bytes": sum(each.waiting_bytes for each in snapshot.sessions),
            "outbox_bytes": sum(each.pending_bytes for each in snapshot.sessions),
            "requests_running": sum(each.serving for each in snapshot.sessions if each.proof != "local"),
            "requests_waiting": snapshot.queued,
            "retained": snapshot.retained,
        },
        "slow": len({each.session for each in snapshot.slow if is_slow(each)}),
        "waiting_bytes": snapshot.waiting_bytes,
        "max_waiting_bytes": snapshot.max_waiting_bytes,
        "dependencies": {"unmet": work.unmet, "conflicts": work.conflicting, "cycles": work.cycles},
        "cleanups": {"done": work.cleanups - work.cleanups_failed, "failed": work.cleanups_failed},
        "counters": dict(snapshot.counters),
    }


def add_usage(document: dict[str, Any], measured: Measured) -> None:
    """Put into a status what the processes use."""
    for row in document["plugins"]:
        row.update(usage_of(measured.plugins.get(row["pid"]) if row["transport"] != "tcp" else None))
    document["broker"].update(usage_of(measured.broker))
    document["broker"]["total"] = usage_of(measured.total)


def local_pids(document: Mapping[str, Any]) -> list[int]:
    """The processes of plugins on this machine."""
    return [row["pid"] for row in document["plugins"] if row["pid"] and row["transport"] != "tcp"]


class Pace:
    """How fast a counter moves: the average since the last look, or over a minute when there were several."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._rate = 0.0

    def per_second(self, count: int, now: float) -> float:
        """The rate at `now`, in seconds of a monotonic clock."""
        seen = self._seen
        while len(seen) > 1 and seen[1][0] <= now - WINDOW_SECS:
            seen.popleft()
        if seen and now - seen[0][0] >= SHORTEST_SECS:
            self._rate = (count - seen[0][1]) / (now - seen[0][0])
        if not seen or now - seen[-1][0] >= SHORTEST_SECS:
            seen.append((now, count))
        return self._rate


def _number(value: object) -> float:
    """What a plugin said, if it is a number that makes sense, or else 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        return 0.0
    return float(value)
