"""Removes audit entries that are too old, a few at a time, so that writes never wait for it long."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.store.database import Database

BATCH = 1_000
EVERY = timedelta(hours=1)


class Ageing:
    """How far the removal of old audit entries of one node got.

    Args:
        keep: the age at which an entry is removed; nothing is removed when this is zero.
        clock: the time of the entries.
    """

    def __init__(self, database: Database, node: str, keep: timedelta, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._node = node
        self._keep = keep
        self._clock = clock
        self._next: datetime | None = None

    def due(self) -> bool:
        """Whether there may be something to remove."""
        return bool(self._keep) and (self._next is None or self._clock() >= self._next)

    def remove_some(self) -> None:
        """Remove one batch; raises StoreDown."""
        now = self._clock()
        removed = self._database.remove_audits(self._node, now.astimezone(UTC) - self._keep, BATCH)
        if removed < BATCH:
            self._next = now + EVERY
