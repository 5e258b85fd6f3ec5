"""A database that is slow or gone never makes the broker wait, and what waited lands when it is back."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from broker.store import Loss, RegisterStatus, Store
from broker.store.database import Database
from broker.store.engine import open_engine
from broker.store.revisions import HEAD
from broker.store.writes import exited
from tests.integration.store.conftest import OpenStore, Server
from tests.integration.store.support import (
    BOUND_SECS,
    actions,
    describe,
    down,
    finished,
    land,
    plugin,
    statuses,
    up,
    wait_for,
)

# A thousand writes take about 10 ms; a tenth of a second each would be a stalled broker.
SUBMIT_SECS = 0.25


def submit_a_thousand(store: Store) -> float:
    """Submit 1,000 writes of all kinds and return the seconds that it took."""
    began = time.perf_counter()
    for number in range(250):
        describe(store, f"p{number}")
        store.plugins.update_registration_status(f"p{number}", RegisterStatus.REGISTERING)
        store.plugins.update_registration_status(f"p{number}", RegisterStatus.FAILED, f"error {number}")
        store.audit.record("test", f"a{number}", f"p{number}", "ok")
    return time.perf_counter() - began


def all_landed(store: Store) -> None:
    assert actions(store) == [f"a{number}" for number in range(250)]
    records = finished(store.plugins.list())
    assert {record.plugin_id: record.register_error for record in records} == {
        f"p{number}": f"error {number}" for number in range(250)
    }
    assert (store.state().pending, store.state().dropped) == (0, 0)


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold a lock that keeps everybody else from writing."""
    engine = open_engine(url)
    with engine.begin() as connection:
        if connection.dialect.name != "sqlite":
            connection.execute(text("SELECT * FROM t_plugin WHERE node = 'here' FOR UPDATE")).all()
        yield
    engine.dispose()


@contextmanager
def unusable(url: str) -> Iterator[None]:
    """Make the database look like one of a newer plugmesh, which takes no time on any server."""
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    yield
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": HEAD})
    engine.dispose()


def test_writes_during_an_outage_return_at_once_and_land_when_the_server_is_back(
    stores: OpenStore, mariadb: Server, server_url: str
) -> None:
    store = stores(server_url)
    describe(store, "before")
    land(store)
    finished(store.plugins.list())
    mariadb.kill()
    assert submit_a_thousand(store) < SUBMIT_SECS
    assert "127.0.0.1" in down(store)
    assert "s3cr" not in store.state().reason
    assert store.state().pending == 1_000
    mariadb.start()
    assert statuses(store).pop("before") is RegisterStatus.UNREGISTERED
    assert actions(store) == [f"a{number}" for number in range(250)]
    assert store.state().written == 1_001
    assert plugin(store, "p249").register_error == "error 249"


def test_a_server_killed_in_the_middle_of_the_writes_gets_each_of_them_once(
    stores: OpenStore, mariadb: Server, server_url: str
) -> None:
    store = stores(server_url)
    up(store)
    producer = threading.Thread(target=submit_slowly, args=(store,))
    producer.start()
    wait_for(lambda: store.state().written > 50, "some writes to land")
    mariadb.kill()
    wait_for(lambda: store.state().pending > 50, "some writes to wait")
    mariadb.start()
    producer.join()
    assert actions(store) == [f"a{number}" for number in range(500)]


def submit_slowly(store: Store) -> None:
    for number in range(500):
        store.audit.record("test", f"a{number}", "hello", "ok")
        time.sleep(0.0005)


def test_a_connection_that_broke_in_use_is_given_back_without_a_word(
    mariadb: Server, server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(server_url)
    connection = engine.raw_connection()
    mariadb.kill()
    connection.close()
    assert not caplog.records
    engine.dispose()


def test_a_server_that_starts_after_the_broker_is_found(stores: OpenStore, mariadb: Server, server_url: str) -> None:
    mariadb.kill()
    store = stores(server_url)
    assert "cannot be reached" in down(store)
    assert "start the server" in store.state().reason
    assert submit_a_thousand(store) < SUBMIT_SECS
    mariadb.start()
    all_landed(store)


def test_a_restart_between_two_writes_is_not_even_noticed(
    stores: OpenStore, mariadb: Server, server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = stores(server_url)
    describe(store, "before")
    land(store)
    mariadb.kill()
    mariadb.start()
    with caplog.at_level(logging.WARNING, "broker.store"):
        describe(store, "after")
        assert set(statuses(store)) == {"before", "after"}
    assert caplog.messages == []


def test_a_frozen_server_is_reported_and_blocks_nobody(stores: OpenStore, mariadb: Server, server_url: str) -> None:
    store = stores(f"{server_url}?read_timeout=1&connect_timeout=1")
    up(store)
    os.kill(mariadb.pid, signal.SIGSTOP)
    try:
        assert submit_a_thousand(store) < SUBMIT_SECS
        assert "does not answer" in down(store) or "cannot be reached" in store.state().reason
    finally:
        os.kill(mariadb.pid, signal.SIGCONT)
    all_landed(store)


def test_a_lock_held_by_another_connection_blocks_no_submit_and_no_read(open_store: OpenStore, url: str) -> None:
    store = open_store()
    store.plugins.update_registration_status("p0", RegisterStatus.REGISTERED)
    land(store)
    with locked(url):
        assert submit_a_thousand(store) < SUBMIT_SECS
        first = finished(store.plugins.get("p0"))
        assert first is not None
        assert first.register_status is RegisterStatus.REGISTERED
        assert "is locked by another connection" in down(store)
        assert store.state().pending == 1_000
    all_landed(store)


def test_the_victim_of_a_deadlock_tries_again(stores: OpenStore, mariadb: Server, server_url: str) -> None:
    store = stores(server_url)
    others = [f"p{number}" for number in range(50)]
    for plugin_id in ("a", "b", *others):
        describe(store, plugin_id)
    land(store)
    database = Database(server_url)
    batch = [exited("here", plugin_id, datetime.now(UTC), "mine", 1) for plugin_id in ("a", "b")]
    other = mariadb.connect(server_url.rpartition("/")[2])
    with other, other.cursor() as cursor, ThreadPoolExecutor(1) as threads:
        # The server sacrifices the transaction that has changed less. One statement for all would lock all rows.
        change = "UPDATE t_plugin SET restarts = restarts + 7 WHERE node = 'here' AND plugin_id = %s"
        cursor.executemany(change, [[plugin_id] for plugin_id in ("b", *others)])
        writing = threads.submit(database.write, batch)
        wait_for(lambda: mariadb.run("SELECT * FROM information_schema.innodb_lock_waits"), "it to wait for b")
        cursor.execute(change, ["a"])
        other.commit()
        writing.result(BOUND_SECS)
    database.close()
    assert [plugin(store, name).last_exit for name in ("a", "b")] == ["mine", "mine"]


def test_at_the_bound_the_oldest_audit_entries_go_and_are_counted_and_no_status_is_lost(
    open_store: OpenStore, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with unusable(url), caplog.at_level(logging.WARNING, "broker.store"):
        store = open_store(queue_limit=100)
        store.plugins.update_registration_status("first", RegisterStatus.REGISTERED)
        down(store)
        for number in range(300):
            store.audit.record("test", f"a{number}", "hello", "ok")
            store.plugins.update_registration_status(f"p{number % 60}", RegisterStatus.REGISTERING)
            store.plugins.update_registration_status(f"p{number % 60}", RegisterStatus.FAILED, f"error {number}")
        state = store.state()
        assert state.pending <= 100
        assert state.losses == {Loss.OVERFLOW: state.dropped}
        assert state.dropped + state.merged + state.pending == 901
    lost = [message for message in caplog.messages if "will not be stored" in message]
    assert lost[0].startswith("a0 of 'hello' will not be stored, 1 writes lost so far: database ")
    assert len(lost) == 3
    kept = actions(store)
    errors = {record.plugin_id: record.register_error for record in finished(store.plugins.list())}
    assert errors == {"first": None} | {f"p{number}": f"error {240 + number}" for number in range(60)}
    assert kept == [f"a{number}" for number in range(300 - len(kept), 300)]
    assert state.dropped == 300 - len(kept)


def test_closing_while_the_server_is_away_takes_no_longer_than_allowed_and_tells_what_is_lost(
    stores: OpenStore, mariadb: Server, server_url: str
) -> None:
    store = stores(server_url)
    up(store)
    mariadb.kill()
    submit_a_thousand(store)
    down(store)
    began = time.monotonic()
    assert finished(store.flush(0.2)) == 1_000
    assert store.close(timeout=0.3) == 1_000
    assert time.monotonic() - began < 2
    assert store.state().status == "closed"
    assert store.state().reason.startswith("1000 writes did not land: database ")


def test_flush_waits_for_what_was_submitted_before_and_nothing_else(open_store: OpenStore) -> None:
    store = open_store()
    stop = threading.Event()

    def submit_for_ever() -> None:
        while not stop.wait(0.0005):
            store.audit.record("test", "more", "hello", "ok")

    producer = threading.Thread(target=submit_for_ever)
    producer.start()
    try:
        began = time.monotonic()
        assert finished(store.flush(BOUND_SECS)) == 0
        assert time.monotonic() - began < BOUND_SECS
    finally:
        stop.set()
        producer.join()
