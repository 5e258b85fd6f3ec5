"""Whatever is wrong with the database, the broker runs, and says what it is and what to do; never the password."""

import socket
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from broker.store import StoreDown, Unusable
from broker.store.migrate import upgrade
from tests.integration.store.conftest import OpenStore, Server
from tests.integration.store.support import describe, down, finished, land, statuses, wait_for
from tests.mariadb_server import PASSWORD, USER


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "database URL  is malformed: use sqlite:///PATH or mysql+pymysql://USER:PASSWORD@HOST/DATABASE"),
        ("broker.db", "is malformed"),
        ("mysql+pymysql://mesh:s3cret@host:port/mesh", "mysql+pymysql://mesh:***@host:port/mesh is malformed"),
        ("mysql+pymysql://mesh:s3cret", "mysql+pymysql://mesh:*** is malformed"),
        ("mysql+pymysql://mesh:s3cret@host", "mysql+pymysql://mesh:***@host names no database"),
        ("mysql://mesh:s3cret@host/mesh", "unknown driver 'mysql'"),
        ("postgresql://mesh:s3cret@host/mesh", "unknown driver 'postgresql'"),
        ("sqlite://", "is in memory"),
        ("sqlite:///:memory:", "is in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "is in memory"),
    ],
)
def test_a_url_that_means_no_database_is_explained_and_nobody_waits_for_it(
    stores: OpenStore, url: str, reason: str
) -> None:
    store = stores(url)
    describe(store, "hello")
    assert reason in down(store)
    assert "s3cret" not in str(store.state())
    assert finished(store.flush(60)) == 1
    assert store.close(timeout=60) == 1
    with pytest.raises(Unusable):
        upgrade(url)


def test_a_directory_that_does_not_exist_is_explained_and_healed_by_making_it(
    stores: OpenStore, tmp_path: Path
) -> None:
    store = stores(f"sqlite:///{tmp_path}/missing/broker.db")
    describe(store, "hello")
    assert f"database sqlite:///{tmp_path}/missing/broker.db cannot be opened" in down(store)
    assert "its directory must exist" in store.state().reason
    (tmp_path / "missing").mkdir()
    assert set(statuses(store)) == {"hello"}


def test_a_file_that_is_no_database_is_explained_and_left_as_it_is(stores: OpenStore, tmp_path: Path) -> None:
    file = tmp_path / "broker.db"
    file.write_bytes(b"These are the notes of somebody else." * 100)
    assert "is damaged or no SQLite database" in down(stores(f"sqlite:///{file}"))
    assert file.read_bytes() == b"These are the notes of somebody else." * 100


def test_a_read_only_database_is_explained(stores: OpenStore, sqlite_url: str) -> None:
    upgrade(sqlite_url)
    path = sqlite_url.removeprefix("sqlite:///")
    store = stores(f"sqlite:///file:{path}?mode=ro&uri=true")
    describe(store, "hello")
    assert "is read-only" in down(store)
    assert store.state().pending == 1


def test_a_full_disk_is_explained_and_nothing_is_lost_when_there_is_space_again(
    stores: OpenStore, sqlite_url: str
) -> None:
    upgrade(sqlite_url)
    full = True

    def limit(connection: Any, _: object) -> None:
        # SQLite never goes below the pages that there are.
        connection.execute(f"PRAGMA max_page_count = {1 if full else 1_000_000}")

    event.listen(Engine, "connect", limit)
    try:
        store = stores(sqlite_url)
        for number in range(500):
            store.plugins.update_registration_status(f"p{number}", 3, "error " * 50)
        assert "has no space left" in down(store)
        assert "free some space" in store.state().reason
        full = False
        land(store)
        assert set(statuses(store)) == {f"p{number}" for number in range(500)}
    finally:
        event.remove(Engine, "connect", limit)


def test_a_table_that_somebody_dropped_is_explained_and_the_writes_wait(
    stores: OpenStore, mariadb: Server, server_url: str
) -> None:
    store = stores(server_url)
    describe(store, "hello")
    land(store)
    name = server_url.rpartition("/")[2]
    mariadb.run(f"RENAME TABLE {name}.t_plugin TO {name}.t_moved")
    describe(store, "other")
    assert "has not the tables it should have" in down(store)
    with pytest.raises(StoreDown, match="has not the tables"):
        finished(store.plugins.list())
    mariadb.run(f"RENAME TABLE {name}.t_moved TO {name}.t_plugin")
    assert set(statuses(store)) == {"hello", "other"}


def test_a_host_that_is_not_there_is_explained(stores: OpenStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    store = stores(f"mysql+pymysql://mesh:s3cret@127.0.0.1:{port}/mesh")
    reason = down(store)
    assert f"database mysql+pymysql://mesh:***@127.0.0.1:{port}/mesh cannot be reached" in reason
    assert "Connection refused" in reason
    assert "correct host and port" in reason
    with pytest.raises(StoreDown, match="cannot be reached"):
        finished(store.plugins.list())


def test_a_wrong_password_is_explained_without_showing_it(stores: OpenStore, mariadb: Server, server_url: str) -> None:
    mariadb.ensure()
    store = stores(mariadb.url(server_url.rpartition("/")[2], password="wr0ng"))
    reason = down(store)
    assert f"mysql+pymysql://{USER}:***@127.0.0.1:{mariadb.port}/" in reason
    assert "refuses the login" in reason
    assert "correct the user and password" in reason
    assert "wr0ng" not in reason
    assert PASSWORD not in reason


@pytest.mark.usefixtures("server_url")
def test_a_database_that_nobody_created_is_explained(stores: OpenStore, mariadb: Server) -> None:
    reason = down(stores(mariadb.url("mesh_nobody_made_it")))
    assert "mesh_nobody_made_it does not exist on its server" in reason
    assert "CREATE DATABASE" in reason


@pytest.mark.usefixtures("server_url")
def test_a_database_of_others_is_explained(stores: OpenStore, mariadb: Server) -> None:
    assert "does not permit this user" in down(stores(mariadb.url("mysql")))


def test_a_user_who_may_not_create_tables_is_told_so_by_the_migration(
    stores: OpenStore, mariadb: Server, mariadb_url: str
) -> None:
    name = mariadb_url.rpartition("/")[2]
    mariadb.run("CREATE USER reader@127.0.0.1 IDENTIFIED BY 's3cret'", f"GRANT SELECT ON {name}.* TO reader@127.0.0.1")
    store = stores(mariadb.url(name, user="reader", password="s3cret"))
    describe(store, "hello")
    reason = down(store)
    assert "does not permit this user what the broker needs" in reason
    assert "CREATE command denied" in reason
    assert "s3cret" not in reason
    mariadb.run(f"GRANT ALL ON {name}.* TO reader@127.0.0.1")
    assert set(statuses(store)) == {"hello"}
    mariadb.run("DROP USER reader@127.0.0.1")


def test_a_migration_whose_process_cannot_start_is_explained(
    stores: OpenStore, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    store = stores(sqlite_url)
    assert "/nowhere/python" in down(store)
    monkeypatch.undo()
    wait_for(lambda: store.state().status == "up", "the next attempt")
