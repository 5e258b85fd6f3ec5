"""SQLAlchemy engines with the settings that the store relies on."""

import logging
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from broker.store.errors import Unusable
from broker.store.url import masked

LOCK_SECS = 1
ANSWER_SECS = 5
CONNECT_SECS = 3
# Execution option of a connection that only reads.
READING = "plugmesh_reading"

_SQLITE = ("sqlite", "sqlite+pysqlite")
_MARIADB = ("mysql+pymysql", "mariadb+pymysql")
_FORMS = "use sqlite:///PATH or mysql+pymysql://USER:PASSWORD@HOST/DATABASE"


def open_engine(url: str, *, lock_secs: int = LOCK_SECS, answer_secs: int = ANSWER_SECS) -> Engine:
    """Return an engine for `url`; nothing is connected yet.

    A lock that others hold is waited for up to `lock_secs`, an answer of a server up to `answer_secs` seconds.

    Raises Unusable when no database can be meant by `url`.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text of the error may quote a part of the password.
        raise Unusable(f"database URL {masked(url)} is malformed: {_FORMS}") from None
    if parsed.drivername in _SQLITE:
        return _sqlite(parsed, lock_secs)
    if parsed.drivername in _MARIADB:
        return _mariadb(parsed, lock_secs, answer_secs)
    raise Unusable(f"database URL {masked(url)} names the unknown driver '{parsed.drivername}': {_FORMS}")


def _sqlite(url: URL, lock_secs: int) -> Engine:
    if url.database in (None, "", ":memory:") or "mode=memory" in url.render_as_string():
        raise Unusable(f"database URL {url} is in memory, where nothing outlives the broker: {_FORMS}")
    engine = create_engine(url, connect_args={"timeout": lock_secs})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own BEGIN comes before the first INSERT only, so neither SELECT nor DDL would be in a transaction.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    # With WAL this can lose the last transactions on a power failure, but not damage the file.
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes fails at once when another one wrote in between, whatever the
    # busy timeout is: so those who mean to write take the lock at the beginning.
    reading = connection.get_execution_options().get(READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _mariadb(url: URL, lock_secs: int, answer_secs: int) -> Engine:
    if not url.database:
        raise Unusable(f"database URL {masked(str(url))} names no database: {_FORMS}")
    waits = f"innodb_lock_wait_timeout = {lock_secs}, lock_wait_timeout = {lock_secs}"
    defaults: dict[str, object] = {
        "connect_timeout": CONNECT_SECS,
        "read_timeout": answer_secs,
        "write_timeout": answer_secs,
        "init_command": f"SET SESSION sql_mode = 'TRADITIONAL', {waits}",
    }
    if _stays_on_this_machine(url):
        # The driver would read all certificates of the system for every connection, which takes 20 ms each time.
        defaults["ssl_disabled"] = True
    arguments = {name: value for name, value in defaults.items() if name not in url.query}
    # The ping finds out that a server was restarted between two batches, so that nothing has to fail first.
    # The pool logs a traceback when a connection is broken as it comes back. The store tells that the database is away.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    return create_engine(
        url, connect_args=arguments | {"charset": "utf8mb4"}, pool_pre_ping=True, pool_size=2, max_overflow=0
    )


def _stays_on_this_machine(url: URL) -> bool:
    asked_for_tls = any(name.startswith("ssl") for name in url.query)
    return not asked_for_tls and (url.host in (None, "localhost", "127.0.0.1", "::1") or "unix_socket" in url.query)
