"""The store as the daemon sees it: start, write, read, flush, close."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from broker.store.audit import AuditRepository
from broker.store.errors import StoreError
from broker.store.handoff import Handoff
from broker.store.health import Health
from broker.store.plugins import PluginRepository
from broker.store.reading import Reader
from broker.store.records import StoreState
from broker.store.url import masked
from broker.store.writes import Write

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")
log = logging.getLogger("broker.store")


def _now() -> datetime:
    return datetime.now(UTC)


class Store:
    """Keeps what the broker wants to remember in SQL, without ever making it wait.

    Writes queue in memory and land in order; while the database is away they wait within a bound.
    """

    def __init__(
        self,
        url: str,
        *,
        node: str,
        queue_limit: int = 10_000,
        audit_keep_days: float = 0,
        retry_secs: float = 1.0,
        read_secs: float = 5.0,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """Take the rows of `node` in the database at `url`.

        At most `queue_limit` writes wait; audit entries are removed after `audit_keep_days`, 0 keeps them for ever;
        the first retry comes after `retry_secs`; a read may take `read_secs`.
        """
        self._url = url
        self._node = node
        self._retry_secs = retry_secs
        self._clock = clock
        self._keep = timedelta(days=audit_keep_days)
        self._handoff = Handoff(queue_limit)
        self._health = Health(masked(url))
        self._reader = Reader(self._health, read_secs)
        self._thread = threading.Thread(target=self._run, name="broker-store", daemon=True)
        self.plugins = PluginRepository(node, self._submit, self._reader, clock)
        self.audit = AuditRepository(node, self._submit, self._reader, clock)

    def start(self) -> None:
        """Start the writer thread; it opens the database, and returns at once."""
        self._thread.start()

    def state(self) -> StoreState:
        """Return what the store is doing now; may be called from any thread."""
        status, reason = self._health.now()
        counts = self._handoff.counts()
        dropped = sum(counts.losses.values())
        return StoreState(status, reason, counts.pending, counts.written, counts.merged, dropped, counts.losses)

    async def read(self, query: "Callable[[Connection], T]") -> T:
        """Return what `query` makes of a connection; it runs on a thread of the store.

        Raises StoreDown when the database is down, closed or does not answer in time.
        """
        return await self._reader.read(query)

    async def flush(self, timeout: float) -> int:
        """Wait up to `timeout` seconds until all writes submitted so far have landed; return how many have not."""
        mark = self._handoff.mark()
        settled = asyncio.wrap_future(self._handoff.settled(mark))
        await asyncio.wait([settled], timeout=timeout)
        settled.cancel()
        return self._handoff.left(mark)

    def close(self, timeout: float) -> int:
        """Accept no more writes, wait up to `timeout` seconds for those that wait, and return how many did not land.

        Blocks; an event loop that must go on calls it on a thread.
        """
        deadline = time.monotonic() + timeout
        self._handoff.refuse()
        mark = self._handoff.mark()
        if self._thread.is_alive():
            self._wait_settled(mark, timeout)
        self._handoff.stop()
        self._reader.close()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))
        left = self._handoff.left(mark)
        self._health.closed(left)
        return left

    def _submit(self, write: Write) -> None:
        for lost in self._handoff.submit(write):
            total = sum(self._handoff.counts().losses.values())
            # 1, 10, 100 …: a log that fills up with every one of them would not help.
            if total == 10 ** (len(str(total)) - 1):
                log.warning("%s will not be stored, %d writes lost so far: %s", lost, total, self._why_lost())

    def _why_lost(self) -> str:
        status, reason = self._health.now()
        return reason or ("the database is slower than what comes in" if status == "up" else f"the store is {status}")

    def _wait_settled(self, mark: int, timeout: float) -> None:
        with suppress(TimeoutError):
            self._handoff.settled(mark).result(timeout)

    def _run(self) -> None:
        try:
            self._work()
        except StoreError as error:
            self._health.down(str(error))
        except Exception as error:
            log.exception("the store has stopped working")
            self._health.down(f"the store has stopped working: {type(error).__name__}: {error}")
        finally:
            self._handoff.abandon()

    def _work(self) -> None:
        # Not at the top: importing SQLAlchemy takes longer than everything else that the broker does to start.
        from broker.store.ageing import Ageing
        from broker.store.database import Database
        from broker.store.writer import Writer

        database = Database(self._url)
        self._reader.database = database
        ageing = Ageing(database, self._node, self._keep, self._clock)
        Writer(database, self._node, self._handoff, self._health, self._retry_secs, ageing).run()
