"""The thread that writes: fetches what waits, lands it in batches, and rides out what happens to the database."""

import logging
from collections.abc import Sequence

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from broker.store.ageing import Ageing
from broker.store.database import Database
from broker.store.errors import Rejected, StoreDown
from broker.store.handoff import Handoff
from broker.store.health import Health
from broker.store.writes import Write

BATCH = 500
# Without anything to write the database is looked at this often, so that its state is no older.
IDLE_SECS = 30.0
# The longest pause between two attempts, in units of the first one.
BACKOFF_LIMIT = 10

log = logging.getLogger("broker.store")


class Writer:
    """Lands the writes of one handoff in one database until the handoff stops."""

    def __init__(
        self, database: Database, node: str, handoff: Handoff, health: Health, retry_secs: float, ageing: Ageing
    ) -> None:
        self._database = database
        self._ageing = ageing
        self._node = node
        self._handoff = handoff
        self._health = health
        self._fresh = True
        self._recovering = Retrying(
            retry=retry_if_exception_type(StoreDown),
            wait=wait_exponential(retry_secs, retry_secs * BACKOFF_LIMIT) + wait_random(0, retry_secs),
            sleep=sleep_using_event(handoff.stopping),
            stop=stop_when_event_set(handoff.stopping),
            before_sleep=self._report,
            reraise=True,
        )

    def run(self) -> None:
        """Work until the handoff stops; may raise StoreDown when the database is down at that moment."""
        try:
            while not self._handoff.stopping.is_set():
                self._recovering(self._recover)
                self._serve()
        finally:
            self._database.close()

    def _recover(self) -> None:
        # Landing what waits belongs to it: a disk that is full still opens, and would otherwise be tried in a loop.
        if self._handoff.stopping.is_set():
            return
        self._database.open()
        if self._fresh:
            # A broker that was killed could not do it, and whatever waits here is newer.
            self._database.forget_registrations(self._node)
            self._fresh = False
        # One will do, and those left in the backlog can still be merged while this attempt lasts.
        self._land(self._handoff.take(1, timeout=0))
        self._health.up()

    def _serve(self) -> None:
        try:
            while not self._handoff.stopping.is_set():
                # What waits for the database goes before what is to leave it.
                writes = self._handoff.take(BATCH, 0 if self._ageing.due() else IDLE_SECS)
                if writes:
                    self._land(writes)
                elif self._ageing.due():
                    self._ageing.remove_some()
                else:
                    self._database.ping()
        except StoreDown as error:
            self._health.down(str(error))

    def _land(self, writes: Sequence[Write]) -> None:
        try:
            self._land_together(writes)
        except StoreDown:
            self._handoff.put_back()
            raise

    def _land_together(self, writes: Sequence[Write]) -> None:
        try:
            self._database.write(writes)
        except Rejected:
            self._land_singly(writes)
        else:
            self._handoff.landed(len(writes))

    def _land_singly(self, writes: Sequence[Write]) -> None:
        for write in writes:
            try:
                self._database.write([write])
            except Rejected as error:
                self._handoff.rejected()
                log.error("%s was not stored: %s", write, error)
            else:
                self._handoff.landed(1)

    def _report(self, attempt: RetryCallState) -> None:
        assert attempt.outcome is not None
        self._health.down(str(attempt.outcome.exception()))
