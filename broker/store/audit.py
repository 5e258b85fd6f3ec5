"""The audit log: who did what to which target, when, with what result (SEC-5)."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from broker.store import writes
from broker.store.reading import Reader
from broker.store.records import AuditRecord
from broker.store.writes import Write

if TYPE_CHECKING:
    from sqlalchemy import Connection


class AuditRepository:
    """The audit log of one node. Recording only queues: it returns at once, whatever the database does."""

    def __init__(
        self, node: str, submit: Callable[[Write], None], reader: Reader, clock: Callable[[], datetime]
    ) -> None:
        self._node = node
        self._submit = submit
        self._reader = reader
        self._clock = clock

    def record(self, actor: str, action: str, target: str, result: str, detail: str = "") -> None:
        """Add an entry, dated now."""
        self._submit(writes.audited(self._node, self._clock(), actor, action, target, result, detail))

    async def newest(self, limit: int = 100, target: str | None = None) -> Sequence[AuditRecord]:
        """Return the newest `limit` entries, about `target` if given, newest first; raises StoreDown."""

        def query(connection: "Connection") -> Sequence[AuditRecord]:
            from broker.store import statements

            return statements.newest_audits(connection, self._node, limit, target)

        return await self._reader.read(query)
