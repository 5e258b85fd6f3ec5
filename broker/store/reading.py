"""Reads for the event loop: run on a thread of their own, with a deadline."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from broker.store.errors import StoreDown
from broker.store.health import Health

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from broker.store.database import Database

T = TypeVar("T")


class Reader:
    """Answers queries from the database that the writer thread has opened."""

    def __init__(self, health: Health, timeout: float) -> None:
        self._health = health
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="broker-store-read")
        self.database: Database | None = None

    async def read(self, query: "Callable[[Connection], T]") -> T:
        """Return what `query` makes of a connection.

        Raises StoreDown when the database is down, closed or does not answer in time.
        """
        try:
            work = asyncio.get_running_loop().run_in_executor(self._threads, self._run, query)
        except RuntimeError:
            raise StoreDown("the store is closed") from None
        try:
            async with asyncio.timeout(self._timeout):
                return await work
        except TimeoutError:
            raise StoreDown(f"the database did not answer a query within {self._timeout:g} s") from None

    def close(self) -> None:
        """Accept no more queries; waits for none."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, query: "Callable[[Connection], T]") -> T:
        self._health.wait_decided(self._timeout)
        status, reason = self._health.now()
        if status != "up" or self.database is None:
            raise StoreDown(reason or f"the store is {status}")
        return self.database.read(query)
