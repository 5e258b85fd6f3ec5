"""Migrations lead to the schema that the code expects, on every database, forward and back (OPS-3)."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Text, inspect, text

from broker.store import StoreDown
from broker.store.engine import open_engine
from broker.store.migrate import current, downgrade, main, upgrade
from broker.store.revisions import HEAD, REVISIONS
from broker.store.schema import metadata
from tests.integration.store.conftest import OpenStore
from tests.integration.store.support import describe, down, land, up, wait_for

ROOT = Path(__file__).parents[3]


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = open_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def differences(url: str) -> list[Any]:
    with connected(url) as connection:
        options = {"compare_type": True, "compare_server_default": True}
        found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return found


def tables(url: str) -> list[str]:
    with connected(url) as connection:
        return inspect(connection).get_table_names()


def test_the_code_knows_the_revisions_that_there_are() -> None:
    revisions = [script.revision for script in ScriptDirectory(str(ROOT / "migrations")).walk_revisions()]
    assert tuple(reversed(revisions)) == REVISIONS


def test_the_migrated_database_is_what_the_code_expects(empty_url: str) -> None:
    assert differences(empty_url), "an empty database must differ, or the comparison sees nothing"
    upgrade(empty_url)
    assert differences(empty_url) == []
    assert current(empty_url) == HEAD


def test_the_plugin_table_keeps_the_registration_as_demanded(url: str) -> None:
    """PLG-4."""
    with connected(url) as connection:
        columns = {column["name"]: column for column in inspect(connection).get_columns("t_plugin")}
        indexes = {index["name"]: index["column_names"] for index in inspect(connection).get_indexes("t_plugin")}
    status, error = columns["register_status"], columns["register_error"]
    assert (str(status["type"]), status["nullable"], status["default"]) in [
        ("INTEGER", False, "0"),
        ("INTEGER(11)", False, "0"),
    ]
    assert isinstance(error["type"], Text)
    assert (error["nullable"], error["default"]) in [(True, None), (True, "NULL")]
    assert indexes["idx_register_status"] == ["register_status"]


def test_going_back_to_the_beginning_leaves_nothing_and_forward_again_works(empty_url: str) -> None:
    upgrade(empty_url)
    downgrade(empty_url, "base")
    assert tables(empty_url) == []
    assert current(empty_url) is None
    upgrade(empty_url)
    assert differences(empty_url) == []


def test_migrating_twice_changes_nothing(open_store: OpenStore, url: str) -> None:
    store = open_store()
    describe(store, "hello")
    land(store)
    upgrade(url)
    with connected(url) as connection:
        assert connection.execute(text("SELECT plugin_id FROM t_plugin")).scalars().all() == ["hello"]


def test_an_upgrade_that_was_killed_half_way_is_finished_by_the_next(empty_url: str) -> None:
    """MariaDB commits every CREATE by itself."""
    upgrade(empty_url)
    with connected(empty_url) as connection:
        for statement in ("DROP TABLE alembic_version", "DROP TABLE t_audit"):
            connection.execute(text(statement))
        index = "DROP INDEX idx_register_status"
        connection.execute(text(index if connection.dialect.name == "sqlite" else f"{index} ON t_plugin"))
    upgrade(empty_url)
    assert differences(empty_url) == []


def test_two_brokers_may_migrate_the_same_database_at_once(empty_url: str) -> None:
    command = [sys.executable, "-m", "broker.store.migrate", "-", "upgrade"]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(f"{empty_url}\n".encode())
        child.stdin.close()
        child.stdin = None
    assert [child.communicate(timeout=30)[1] for child in children] == [b"", b""]
    assert [child.returncode for child in children] == [0, 0]
    assert differences(empty_url) == []


def test_the_command_line_goes_forward_and_back_and_tells_where_it_is(
    sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([sqlite_url, "current"]) == 0
    assert main([sqlite_url, "upgrade"]) == 0
    assert main([sqlite_url, "current"]) == 0
    assert capsys.readouterr().out == f"base\n{HEAD}\n"
    assert main([sqlite_url, "downgrade", "base"]) == 0
    assert tables(sqlite_url) == []


def test_the_command_line_reads_the_url_where_nobody_sees_it_and_says_in_one_line_why_it_failed() -> None:
    failed = subprocess.run(
        [sys.executable, "-m", "broker.store.migrate", "-", "upgrade"],
        input="sqlite:////nowhere/broker.db\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("database sqlite:////nowhere/broker.db cannot be opened")
    assert failed.stderr.count("\n") == 1


def test_a_revision_that_does_not_exist_is_named(url: str) -> None:
    with pytest.raises(StoreDown, match="4711"):
        upgrade(url, "4711")


def test_a_database_of_a_newer_plugmesh_is_left_alone(open_store: OpenStore, url: str) -> None:
    with connected(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store = open_store()
    reason = down(store)
    assert "is at revision '9999'" in reason
    assert f"up to '{HEAD}'" in reason
    assert "install the newer plugmesh" in reason
    with pytest.raises(StoreDown, match="9999"):
        upgrade(url)
    with pytest.raises(StoreDown, match="9999"):
        downgrade(url, "base")


def test_the_broker_migrates_by_a_child_that_is_not_told_the_password_where_others_can_see_it(
    stores: OpenStore, mariadb_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    spy = tmp_path / "python"
    spy.write_text(f'#!/bin/sh\necho "$@" >> {seen}\nenv >> {seen}\nexec {sys.executable} "$@"\n')
    spy.chmod(spy.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(spy))
    up(stores(mariadb_url))
    assert differences(mariadb_url) == []
    assert "broker.store.migrate" in seen.read_text()
    assert "s3cr" not in seen.read_text()


def test_the_child_that_migrates_ends_with_its_parent(sqlite_url: str) -> None:
    command = [sys.executable, "-m", "broker.store.migrate", "--tied", "-", "upgrade"]
    with connected(sqlite_url):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdin is not None
        child.stdin.write(f"{sqlite_url}\n".encode())
        child.stdin.flush()
        wait_for(lambda: opened(child.pid, "broker.db"), "the child to wait for the lock")
        child.stdin.close()
        child.stdin = None
        child.communicate(timeout=2)
    assert child.returncode == 1


def opened(pid: int, name: str) -> bool:
    files = Path(f"/proc/{pid}/fd")
    try:
        return any(os.readlink(file).endswith(name) for file in files.iterdir())
    except FileNotFoundError:
        # One that was closed between the listing and the look.
        return False
