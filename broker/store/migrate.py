"""Moves a database between revisions with Alembic: for the CLI, and as the child process of the store.

    python -m broker.store.migrate URL upgrade|downgrade|current [REVISION]

A URL of `-` is read from standard input, since the arguments of a process are public and a URL may hold a password.
"""

import argparse
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, func, select, text

from broker.store.diagnosis import explained
from broker.store.engine import READING, open_engine
from broker.store.errors import StoreDown, StoreError
from broker.store.revisions import refuse_newer, stored_revision
from broker.store.url import masked

# Altering a table may take long, and so may waiting for another broker that does it.
LOCK_SECS = 30
ANSWER_SECS = 90


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` to `revision`, creating its tables where there are none.

    Raises StoreDown when that fails or the database is newer than this plugmesh, Unusable for a malformed `url`.
    """
    with _alone(url) as connection:
        refuse_newer(stored_revision(connection), url)
        command.upgrade(_config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to `revision`; `base` leaves no table behind, and no data.

    Raises as `upgrade` does.
    """
    with _alone(url) as connection:
        refuse_newer(stored_revision(connection), url)
        command.downgrade(_config(connection), revision)
        if stored_revision(connection) is None:
            connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def current(url: str) -> str | None:
    """Return the revision of the database at `url`, None when it has none of the tables; raises as `upgrade` does."""
    engine = open_engine(url)
    try:
        with explained(url), engine.connect().execution_options(**{READING: True}) as connection:
            return stored_revision(connection)
    finally:
        engine.dispose()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed (the reason is on standard error)."""
    options = _parser().parse_args(arguments)
    url = sys.stdin.readline().rstrip("\n") if options.url == "-" else options.url
    if options.tied:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _perform(options.action, url, options.revision)
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _perform(action: str, url: str, revision: str | None) -> None:
    if action == "upgrade":
        upgrade(url, revision or "head")
    elif action == "downgrade":
        downgrade(url, revision or "-1")
    else:
        sys.stdout.write(f"{current(url) or 'base'}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m broker.store.migrate")
    parser.add_argument("--tied", action="store_true", help="end at once when standard input is closed")
    parser.add_argument("url", metavar="URL", help="database URL, or - to read it from standard input")
    parser.add_argument("action", choices=("upgrade", "downgrade", "current"))
    parser.add_argument("revision", nargs="?", metavar="REVISION", help="default: head, or one step back")
    return parser


def _end_with_parent() -> None:
    # Not sys.stdin: its lock would be held when the interpreter wants to finish.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


@contextmanager
def _alone(url: str) -> Iterator[Connection]:
    """Connect in a transaction that keeps every other process from migrating the same database."""
    engine = open_engine(url, lock_secs=LOCK_SECS, answer_secs=ANSWER_SECS)
    try:
        with explained(url), _lock(engine, url), engine.begin() as connection, _revisions_named(url):
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _lock(engine: Engine, url: str) -> Iterator[None]:
    if engine.dialect.name == "sqlite":
        # The transaction is the lock already, and undoes a migration that fails or is killed.
        yield
        return
    # MariaDB commits at every CREATE and DROP, so a transaction keeps nobody out. The lock belongs to a connection of
    # its own, because it must outlast the last commit.
    name = func.concat("plugmesh.migrate.", func.md5(func.database()))
    with engine.connect() as holder:
        if holder.execute(select(func.get_lock(name, LOCK_SECS))).scalar() != 1:
            raise StoreDown(f"database {masked(url)} is being migrated by another process: try again later")
        try:
            yield
        finally:
            holder.execute(select(func.release_lock(name)))


@contextmanager
def _revisions_named(url: str) -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise StoreDown(f"database {masked(url)} cannot be migrated: {error}") from error


def _config(connection: Connection) -> Config:
    package = importlib.util.find_spec("broker.migrations")
    if package is None or package.origin is None:
        raise StoreDown("package broker.migrations is not installed: install plugmesh again")
    config = Config()
    # ConfigParser takes a percent sign for the start of a reference.
    config.set_main_option("script_location", str(Path(package.origin).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


if __name__ == "__main__":
    sys.exit(main())
