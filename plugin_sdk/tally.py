"""The figures of all handlers of one kind, those that have ended too: their sums never go down."""

from __future__ import annotations

from plugin_sdk.workers import HandlerStats


class Tally:
    """Adds up what handlers have done."""

    def __init__(self) -> None:
        self._live: dict[int, HandlerStats] = {}
        self._past = HandlerStats()

    def begin(self, stats: HandlerStats) -> None:
        """Count a handler from now on."""
        self._live[id(stats)] = stats

    def close(self, stats: HandlerStats) -> None:
        """It has ended: keep its figures, and not itself."""
        if self._live.pop(id(stats), None) is not None:
            _add(self._past, stats)

    def total(self) -> HandlerStats:
        """The sum of all of them."""
        total = HandlerStats()
        for stats in (self._past, *self._live.values()):
            _add(total, stats)
        return total


def _add(total: HandlerStats, stats: HandlerStats) -> None:
    total.handled += stats.handled
    total.failed += stats.failed
    total.filtered += stats.filtered
    total.total_time += stats.total_time
    total.longest = max(total.longest, stats.longest)
