"""What the store promises, on every database alike."""

import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from broker.store import AuditRecord, Loss, RegisterStatus, Store, StoreDown
from broker.store.database import Database
from broker.store.writes import audited
from tests.integration.store.conftest import OpenStore, Server
from tests.integration.store.support import actions, describe, finished, land, plugin, statuses, up, wait_for

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def test_a_plugin_is_read_back_as_it_was_described(open_store: OpenStore) -> None:
    store = open_store(clock=lambda: NOON)
    description = "Grüße, 你好 🐝 \x00 'quoted' \"twice\" \\ 100%"
    store.plugins.upsert(
        "hello",
        name="Hello",
        version="1.2.3",
        description=description,
        enabled=False,
        desired_state="stopped",
    )
    found = plugin(store, "hello")
    assert (found.plugin_id, found.name, found.version) == ("hello", "Hello", "1.2.3")
    assert (found.description, found.enabled, found.desired_state) == (description, False, "stopped")
    assert (found.register_status, found.register_error) == (RegisterStatus.UNREGISTERED, None)
    assert (found.restarts, found.last_exit) == (0, None)
    assert (found.created_at, found.updated_at) == (NOON, NOON)


def test_registration_goes_through_its_states_and_success_clears_the_error(store: Store) -> None:
    """PLG-4."""
    describe(store, "hello")
    for status, error in ((RegisterStatus.REGISTERING, None), (RegisterStatus.FAILED, "attempt 1: refused")):
        store.plugins.update_registration_status("hello", status, error)
        found = plugin(store, "hello")
        assert (found.register_status, found.register_error) == (status, error)
    store.plugins.update_registration_status("hello", 2, "not an error")
    found = plugin(store, "hello")
    assert (found.register_status, found.register_error) == (RegisterStatus.REGISTERED, None)


def test_a_status_outside_the_table_is_refused_at_once(store: Store) -> None:
    with pytest.raises(ValueError, match="7"):
        store.plugins.update_registration_status("hello", 7)


def test_describing_a_plugin_again_keeps_its_registration_and_its_first_date(open_store: OpenStore) -> None:
    moments = iter((NOON, NOON + timedelta(seconds=1), NOON + timedelta(seconds=2)))
    store = open_store(clock=lambda: next(moments))
    describe(store, "hello", version="1.0.0")
    store.plugins.update_registration_status("hello", RegisterStatus.FAILED, "port in use")
    describe(store, "hello", version="2.0.0")
    found = plugin(store, "hello")
    assert (found.version, found.register_error) == ("2.0.0", "port in use")
    assert (found.created_at, found.updated_at) == (NOON, NOON + timedelta(seconds=2))


def test_the_status_of_a_plugin_that_nobody_described_is_kept(store: Store) -> None:
    store.plugins.update_registration_status("stranger", RegisterStatus.REGISTERED)
    store.plugins.record_exit("other", "exit status 3", 1)
    assert statuses(store) == {"other": RegisterStatus.UNREGISTERED, "stranger": RegisterStatus.REGISTERED}


def test_the_last_exit_and_the_number_of_restarts_are_kept(store: Store) -> None:
    store.plugins.record_exit("hello", "exit status 3", 1)
    store.plugins.record_exit("hello", "killed by SIGSEGV", 2)
    found = plugin(store, "hello")
    assert (found.last_exit, found.restarts) == ("killed by SIGSEGV", 2)


def test_names_that_differ_in_case_only_are_two_plugins(store: Store) -> None:
    store.plugins.update_registration_status("hello", RegisterStatus.REGISTERED)
    store.plugins.update_registration_status("Hello", RegisterStatus.FAILED, "no")
    assert statuses(store) == {"Hello": RegisterStatus.FAILED, "hello": RegisterStatus.REGISTERED}


def test_a_server_may_be_reached_by_its_unix_socket(stores: OpenStore, mariadb: Server, server_url: str) -> None:
    name = server_url.rpartition("/")[2]
    store = stores(f"mysql+pymysql://root@/{name}?unix_socket={mariadb.folder}/socket")
    store.plugins.update_registration_status("hello", RegisterStatus.REGISTERED)
    assert statuses(store) == {"hello": RegisterStatus.REGISTERED}


def test_an_unknown_plugin_is_none(store: Store) -> None:
    assert finished(store.plugins.get("nobody")) is None


@pytest.mark.parametrize("letter", ["x", "ö", "🐝"])
def test_an_error_longer_than_the_column_keeps_its_beginning_and_its_end(store: Store, letter: str) -> None:
    error = f"first line {letter * 100_000} last line"
    store.plugins.update_registration_status("chatty", RegisterStatus.FAILED, error)
    found = plugin(store, "chatty")
    assert found.register_status is RegisterStatus.FAILED
    assert found.register_error is not None
    assert found.register_error.startswith("first line")
    assert found.register_error.endswith("last line")
    assert f"[{len(error.encode())} bytes]" in found.register_error


def test_output_that_is_not_unicode_is_kept_readable(store: Store) -> None:
    error = b"bad \xff byte".decode("utf-8", "surrogateescape")
    store.plugins.update_registration_status("binary", RegisterStatus.FAILED, error)
    assert plugin(store, "binary").register_error == "bad \\udcff byte"


def test_a_new_broker_forgets_the_registrations_that_a_killed_one_left(open_store: OpenStore) -> None:
    before = open_store()
    for number, status in enumerate(RegisterStatus):
        before.plugins.update_registration_status(f"p{number}", status, "why" if status == 3 else None)
    land(before)
    after = open_store()
    up(after)
    assert statuses(after) == {
        "p0": RegisterStatus.UNREGISTERED,
        "p1": RegisterStatus.UNREGISTERED,
        "p2": RegisterStatus.UNREGISTERED,
        "p3": RegisterStatus.FAILED,
    }
    assert plugin(after, "p3").register_error == "why"


def test_what_is_submitted_before_the_database_is_open_is_newer_than_what_it_forgets(open_store: OpenStore) -> None:
    before = open_store()
    before.plugins.update_registration_status("hello", RegisterStatus.REGISTERED)
    land(before)
    after = open_store()
    after.plugins.update_registration_status("hello", RegisterStatus.REGISTERED)
    assert statuses(after) == {"hello": RegisterStatus.REGISTERED}


def test_nodes_do_not_touch_each_other(open_store: OpenStore) -> None:
    here = open_store(node="here")
    here.plugins.update_registration_status("hello", RegisterStatus.REGISTERED)
    here.audit.record("broker", "start", "hello", "ok")
    land(here)
    there = open_store(node="there")
    there.plugins.update_registration_status("hello", RegisterStatus.FAILED, "no")
    assert statuses(there) == {"hello": RegisterStatus.FAILED}
    assert actions(there) == []
    assert statuses(here) == {"hello": RegisterStatus.REGISTERED}


def test_the_audit_log_tells_who_did_what_when_with_what_result(open_store: OpenStore) -> None:
    """SEC-5."""
    store = open_store(clock=lambda: NOON)
    store.audit.record("ada", "stop", "hello", "ok", "by broker stop")
    store.audit.record("hello", "publish", "user.login", "denied", "event_bus: publish user.login")
    land(store)
    newest, oldest = finished(store.audit.newest())
    assert newest == AuditRecord(NOON, "hello", "publish", "user.login", "denied", "event_bus: publish user.login")
    assert finished(store.audit.newest(target="hello")) == [oldest]
    assert finished(store.audit.newest(limit=1)) == [newest]


def test_writes_land_in_order_through_batches_of_any_kind(store: Store) -> None:
    for number in range(1_200):
        store.audit.record("test", f"a{number}", "hello", "ok")
        if number % 7 == 0:
            store.plugins.record_exit("hello", f"exit {number}", number)
    assert actions(store) == [f"a{number}" for number in range(1_200)]
    assert plugin(store, "hello").restarts == 1_197


def test_a_bad_write_is_named_and_spoils_no_other(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    up(store)
    with caplog.at_level(logging.ERROR, "broker.store"):
        for number in range(20):
            store.audit.record("test", f"a{number}", "hello", "ok")
            store.plugins.record_exit(f"p{number}", "exit", 2**70 if number == 10 else number)
        assert actions(store) == [f"a{number}" for number in range(20)]
    assert set(statuses(store)) == {f"p{number}" for number in range(20)} - {"p10"}
    assert store.state().losses == {Loss.REJECTED: 1}
    assert store.state().written == 39
    [message] = caplog.messages
    assert message.startswith("exit of 'p10' was not stored: the database refuses it")


def test_writing_an_audit_entry_again_adds_no_second_one(store: Store, url: str) -> None:
    """A commit whose answer got lost is repeated."""
    up(store)
    database = Database(url)
    entry = audited("here", NOON, "test", "once", "hello", "ok", "")
    database.write([entry, entry])
    database.write([entry])
    database.close()
    assert actions(store) == ["once"]


def test_a_read_of_ones_own_runs_on_a_thread_of_the_store(store: Store) -> None:
    def query(connection: Connection) -> tuple[object, str]:
        return connection.execute(text("SELECT 40 + 2")).scalar(), threading.current_thread().name

    value, thread = finished(store.read(query))
    assert value == 42
    assert thread.startswith("broker-store-read")


def test_a_read_that_takes_too_long_fails_instead_of_waiting(open_store: OpenStore) -> None:
    store = open_store(read_secs=0.2)
    up(store)
    release = threading.Event()
    with pytest.raises(StoreDown, match=r"within 0\.2 s"):
        finished(store.read(lambda _: release.wait(10)))
    release.set()


def test_an_error_of_the_query_itself_reaches_its_caller(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        finished(store.read(lambda _: 1 / 0))
    assert store.state().status == "up"


def test_a_closed_store_has_landed_everything_and_takes_no_more(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    for number in range(100):
        store.audit.record("test", f"a{number}", "hello", "ok")
    assert store.close(timeout=10) == 0
    assert (store.state().status, store.state().written) == ("closed", 100)
    store.plugins.update_registration_status("late", RegisterStatus.REGISTERED)
    assert store.state().losses == {Loss.CLOSED: 1}
    assert "status of 'late' will not be stored, 1 writes lost so far: the store is closed" in caplog.messages
    with pytest.raises(StoreDown, match="closed"):
        finished(store.plugins.list())
    assert store.close(timeout=10) == 0


def test_audit_entries_that_are_too_old_are_removed_and_the_younger_stay(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-5: in several batches, of this node only, and without keeping a write from landing."""
    monkeypatch.setattr("broker.store.ageing.BATCH", 10)
    before = NOON - timedelta(days=31)
    for node in ("here", "there"):
        filling = open_store(node=node, clock=lambda: before)
        for number in range(35):
            filling.audit.record("ada", f"old {number}", "hello", "done")
        land(filling)
    store = open_store(clock=lambda: NOON, audit_keep_days=30)
    store.audit.record("ada", "young", "hello", "done")
    wait_for(lambda: actions(store) == ["young"], "only the young entry to be left")
    assert len(actions(open_store(node="there"))) == 35


def test_the_audit_log_is_kept_for_ever_when_no_age_is_set(open_store: OpenStore) -> None:
    store = open_store(clock=lambda: NOON - timedelta(days=10_000))
    store.audit.record("ada", "ancient", "hello", "done")
    land(store)
    later = open_store(clock=lambda: NOON)
    later.audit.record("ada", "young", "hello", "done")
    assert actions(later) == ["ancient", "young"]
