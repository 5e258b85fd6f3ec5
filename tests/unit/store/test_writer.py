"""How the writer thread behaves towards a database that does what the test wants."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from broker.store.ageing import Ageing
from broker.store.database import Database
from broker.store.errors import Rejected, StoreDown
from broker.store.handoff import Handoff
from broker.store.health import Health
from broker.store.writer import BACKOFF_LIMIT, Writer
from broker.store.writes import Write, audited

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Stopping(threading.Event):
    """Takes no time to wait, notes how long that would have been, and is set after `attempts` waits."""

    def __init__(self, attempts: int) -> None:
        super().__init__()
        self.waited: list[float] = []
        self._attempts = attempts

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0)
        if len(self.waited) == self._attempts:
            self.set()
        return self.is_set()


class FakeDatabase:
    """Fails as often as told, refuses what is called bad, and remembers its transactions."""

    def __init__(self, handoff: Handoff, *, failing_opens: int = 0, failing_writes: int = 0) -> None:
        self.transactions: list[list[str]] = []
        self.opened = 0
        self.forgotten = 0
        self._handoff = handoff
        self._failing_opens = failing_opens
        self._failing_writes = failing_writes

    def open(self) -> None:
        self.opened += 1
        if self.opened <= self._failing_opens:
            raise StoreDown(f"failure {self.opened}")

    def forget_registrations(self, _node: str) -> None:
        self.forgotten += 1

    def write(self, writes: Sequence[Write]) -> None:
        actions = [str(write.values["action"]) for write in writes]
        if self._failing_writes:
            self._failing_writes -= 1
            raise StoreDown("disk full")
        if "bad" in actions:
            raise Rejected("it is bad")
        self.transactions.append(actions)
        if "last" in actions:
            self._handoff.stop()

    def close(self) -> None:
        self._handoff.refuse()


def prepared(*actions: str, attempts: int = 100) -> tuple[Handoff, Stopping, Health]:
    handoff, stopping = Handoff(100), Stopping(attempts)
    handoff.stopping = stopping
    for action in actions:
        handoff.submit(audited("here", NOON, "test", action, "hello", "ok", ""))
    return handoff, stopping, Health("sqlite:///broker.db")


def run(database: FakeDatabase, handoff: Handoff, health: Health) -> None:
    never = Ageing(cast(Database, database), "here", timedelta(0), lambda: NOON)
    Writer(cast(Database, database), "here", handoff, health, 1.0, never).run()


def test_a_database_that_is_away_is_tried_with_growing_pauses_up_to_a_limit() -> None:
    handoff, stopping, health = prepared(attempts=12)
    database = FakeDatabase(handoff, failing_opens=1_000)
    run(database, handoff, health)
    for number, pause in enumerate(stopping.waited):
        expected = min(2**number, BACKOFF_LIMIT)
        assert expected <= pause <= expected + 1
    assert database.opened == 12
    assert health.now() == ("down", "failure 12")


def test_a_database_that_opens_but_takes_no_writes_is_not_tried_in_a_loop() -> None:
    handoff, stopping, health = prepared("last")
    database = FakeDatabase(handoff, failing_writes=5)
    run(database, handoff, health)
    assert len(stopping.waited) == 5
    assert stopping.waited[-1] >= 8
    assert database.transactions == [["last"]]


def test_after_an_outage_the_pauses_begin_anew() -> None:
    handoff, stopping, health = prepared("last")
    database = FakeDatabase(handoff, failing_opens=4)
    run(database, handoff, health)
    handoff, again, health = prepared("last")
    run(FakeDatabase(handoff, failing_opens=1), handoff, health)
    assert stopping.waited[-1] >= 8
    assert again.waited[0] <= 2


def test_registrations_are_forgotten_once_and_before_anything_is_written() -> None:
    handoff, _, health = prepared("first", "last")
    database = FakeDatabase(handoff, failing_opens=1, failing_writes=2)
    run(database, handoff, health)
    assert (database.forgotten, database.opened) == (1, 4)


def test_what_waits_lands_in_few_transactions() -> None:
    handoff, _, health = prepared(*(f"a{number}" for number in range(90)), "last")
    database = FakeDatabase(handoff)
    run(database, handoff, health)
    assert len(database.transactions) == 2
    assert sum(map(len, database.transactions)) == 91


def test_one_bad_write_makes_its_batch_land_one_by_one() -> None:
    handoff, _, health = prepared("probe", "good", "bad", "better", "last")
    database = FakeDatabase(handoff)
    run(database, handoff, health)
    assert database.transactions == [["probe"], ["good"], ["better"], ["last"]]
    assert handoff.counts().written == 4
