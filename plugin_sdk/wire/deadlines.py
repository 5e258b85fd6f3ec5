"""Deadlines of many short-lived things at constant cost each.

A heap would keep the stale entry of every finished request until its time comes (half a million of them at 100,000
calls a second with 5 s each). Here an entry sits in a bucket of its time slot and leaves it when it is done.
"""

from __future__ import annotations

from heapq import heappop, heappush

RESOLUTION = 0.01  # seconds; a deadline is found at most this much late, never early
_SPARE = 1024  # slots that may be empty


class Deadlines:
    """Which keys are due when; time is whatever clock the caller passes in, in seconds."""

    __slots__ = ("_buckets", "_slots", "_sweep_at")

    def __init__(self) -> None:
        self._buckets: dict[int, set[int]] = {}
        self._slots: list[int] = []
        self._sweep_at = _SPARE

    def add(self, key: int, when: float) -> int:
        """Remember `key` for time `when`; returns the slot, which `discard` wants back."""
        slot = int(when / RESOLUTION) + 1
        bucket = self._buckets.get(slot)
        if bucket is None:
            if len(self._buckets) >= self._sweep_at:
                self._sweep()
            self._buckets[slot] = {key}
            heappush(self._slots, slot)
        else:
            bucket.add(key)
        return slot

    def discard(self, key: int, slot: int) -> None:
        """Forget `key`; nothing happens when it is gone already."""
        bucket = self._buckets.get(slot)
        if bucket is not None:
            bucket.discard(key)

    def expire(self, now: float) -> list[int]:
        """Remove and return every key that is due, earliest slot first."""
        due: list[int] = []
        while self._slots and self._slots[0] * RESOLUTION <= now:
            due.extend(sorted(self._buckets.pop(heappop(self._slots))))
        return due

    def next(self) -> float | None:
        """When `expire` next has something to do, or None."""
        while self._slots and not self._buckets[self._slots[0]]:
            del self._buckets[heappop(self._slots)]
        return self._slots[0] * RESOLUTION if self._slots else None

    def _sweep(self) -> None:
        # Whoever asks with a day to spare and cancels at once would fill the memory with empty slots until then.
        self._buckets = {slot: keys for slot, keys in self._buckets.items() if keys}
        self._slots = sorted(self._buckets)
        self._sweep_at = 2 * len(self._buckets) + _SPARE
