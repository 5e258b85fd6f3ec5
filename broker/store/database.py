"""One database: opening it at the right revision, writing batches, answering queries."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from broker.store import revisions, statements
from broker.store.diagnosis import explained, explained_write, is_deadlock
from broker.store.engine import READING, open_engine
from broker.store.writes import Write

T = TypeVar("T")


class Database:
    """The database at one URL; every method raises StoreDown when it cannot be used.

    `write` and `open` belong to one thread; `read` may be called from another.
    """

    def __init__(self, url: str) -> None:
        """Raises Unusable when `url` means no database."""
        self._url = url
        self._engine: Engine = open_engine(url)
        self._statements = statements.writing(self._engine.dialect.name)

    def open(self) -> None:
        """Connect, and migrate to the newest revision first where that is needed.

        Raises StoreDown also for a database that a newer plugmesh has migrated.
        """
        with explained(self._url):
            # Whatever broke may have left connections behind that only look alive.
            self._engine.dispose()
            if self._revision() != revisions.HEAD:
                revisions.upgrade_in_child(self._url)
                self._revision()

    def forget_registrations(self, node: str) -> None:
        """Set the plugins of `node` that claim to be registering or registered to unregistered."""
        now = datetime.now(UTC).replace(tzinfo=None)
        with explained(self._url), self._engine.begin() as connection:
            connection.execute(statements.forget_registrations(node, now))

    def remove_audits(self, node: str, before: datetime, most: int) -> int:
        """Remove audit entries of `node` from before `before` (UTC), `most` at a time; return how many these were."""
        with explained(self._url), self._engine.begin() as connection:
            return statements.remove_audits(connection, node, before.replace(tzinfo=None), most)

    def write(self, writes: Sequence[Write]) -> None:
        """Land all of `writes`, in order, in one transaction, or none of them.

        Raises Rejected when the database works but does not take the values of one of them.
        """
        with explained_write(self._url):
            self._transact(writes)

    def read(self, query: Callable[[Connection], T]) -> T:
        """Return what `query` makes of a connection; it sees one state of the database throughout."""
        with explained(self._url):
            connection = self._engine.connect().execution_options(**{READING: True})
        # What goes wrong in the query for other reasons is its caller's affair.
        with connection, explained(self._url, SQLAlchemyError):
            return query(connection)

    def ping(self) -> None:
        """Do nothing with the database but find out whether it works."""
        self.read(lambda connection: connection.execute(text("SELECT 1")).scalar())

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._engine.dispose()

    def _revision(self) -> str | None:
        revision = self.read(revisions.stored_revision)
        revisions.refuse_newer(revision, self._url)
        return revision

    @retry(retry=retry_if_exception(is_deadlock), stop=stop_after_attempt(3), wait=wait_random(0, 0.1), reraise=True)
    def _transact(self, writes: Sequence[Write]) -> None:
        with self._engine.begin() as connection:
            for kind, group in groupby(writes, key=lambda write: write.kind):
                connection.execute(self._statements[kind], [dict(write.values) for write in group])
