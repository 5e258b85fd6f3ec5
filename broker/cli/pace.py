"""How fast the counters of a status move, from one status to a later one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Pace:
    """One plugin's rates, a second; None until there are two looks at it. `mean_secs` is that of the same time."""

    published: float | None = None
    events: float | None = None
    requests: float | None = None
    failed: float | None = None
    cpu: float | None = None
    mean_secs: float | None = None


class Paces:
    """The rates of all plugins over the last `window` seconds.

    Plugins tell their figures with their heartbeats only, so a shorter window would show nothing, then a jump.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._looks: deque[tuple[float, dict[str, Any]]] = deque()

    @property
    def secs(self) -> float:
        """How long the time is over which rates are an average."""
        return self._looks[-1][0] - self._looks[0][0] if self._looks else 0.0

    def add(self, now: float, answer: dict[str, Any]) -> None:
        """Take one status, seen at `now` seconds of a monotonic clock."""
        self._looks.append((now, answer))
        while len(self._looks) > 2 and self._looks[1][0] <= now - self._window:
            self._looks.popleft()

    def plugins(self) -> dict[Key, Pace]:
        """Of each plugin, by `key_of` its row."""
        if not self._looks:
            return {}
        now = {key_of(row): row for row in self._looks[-1][1]["plugins"]}
        before = {key_of(row): row for row in self._looks[0][1]["plugins"]}
        return {key: self._pace(before.get(key), row) for key, row in now.items()}

    def broker(self, name: str) -> float | None:
        """Of one of the broker's own counters."""
        if self.secs <= 0:
            return None
        first, last = (look["broker"]["counters"].get(name, 0) for _, look in (self._looks[0], self._looks[-1]))
        return max(0.0, float(last - first) / self.secs)

    def _pace(self, before: Row | None, row: Row) -> Pace:
        if before is None or self.secs <= 0:
            return Pace()
        grown = {name: count(row) - count(before) for name, count in _COUNTS.items()}
        if any(value < 0 for value in grown.values()):
            return Pace()  # the process is another one by now
        runs = grown["events"] + grown["requests"] + grown["failed"]
        spent = grown.pop("spent")
        rates = {name: value / self.secs for name, value in grown.items()}
        cpu = None if row["cpu_secs"] is None else rates["cpu"]
        return Pace(**{**rates, "cpu": cpu, "mean_secs": spent / runs if runs else None})


_COUNTS: dict[str, Callable[[Row], float]] = {
    "published": lambda row: row["published"],
    "events": lambda row: row["figures"]["events_handled"],
    "requests": lambda row: row["figures"]["requests_handled"],
    "failed": lambda row: row["figures"]["events_failed"] + row["figures"]["requests_failed"],
    "cpu": lambda row: row["cpu_secs"] or 0.0,
    "spent": lambda row: row["figures"]["handling_secs"],
}


def key_of(row: Row) -> Key:
    """What makes a row that of the same process."""
    return row["name"], row["instance"], row["pid"] or 0
