"""Turns what SQLAlchemy and the drivers raise into what a person can act on.

The numbers are those of sqlite.org/rescode.html and of mariadb.com/docs "MariaDB Error Codes"; 2000 and above are the
client's own. What is in neither table is taken for a trouble of the database, not of the write: then the write waits
instead of getting lost.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from broker.store.errors import Rejected, StoreDown, StoreError
from broker.store.url import masked

_LOCKED = ("is locked by another connection", "end the program or transaction that holds the lock")
_FULL = ("has no space left", "free some space on its disk")
_READ_ONLY = ("is read-only", "let the broker write to it")
_DAMAGED = ("is damaged or no SQLite database", "move the file away or restore it from a backup")
_LOST = ("does not answer", "look whether the server is running and reachable")
_CROWDED = ("has too many connections", "raise max_connections of the server or end some clients")
_FORBIDDEN = ("does not permit this user what the broker needs", "GRANT ALL on this database to the user")
_LOGIN = ("refuses the login", "correct the user and password in the URL, or create the user on the server")

_SQLITE = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "its directory must exist and be open to the broker's user"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "look at the disk or file system it is on"),
    sqlite3.SQLITE_ERROR: ("has not the tables it should have", "restore it from a backup, or move it away"),
}
_DEADLOCK, _CHANGED_SINCE_READ = 1213, 1020
_MARIADB = {
    1021: _FULL,
    1114: _FULL,
    1040: _CROWDED,
    1203: _CROWDED,
    1226: _CROWDED,
    1044: _FORBIDDEN,
    1142: _FORBIDDEN,
    1143: _FORBIDDEN,
    1045: _LOGIN,
    1130: ("does not let this host in", "create the user on the server for the broker's host"),
    1049: ("does not exist on its server", "create it: CREATE DATABASE … CHARACTER SET utf8mb4"),
    1054: ("has not the columns it should have", "restore it from a backup"),
    1146: ("has not the tables it should have", "restore it from a backup"),
    1205: _LOCKED,
    _DEADLOCK: ("keeps getting into deadlocks", "look who else writes to it"),
    _CHANGED_SINCE_READ: ("keeps getting into deadlocks", "look who else writes to it"),
    1290: _READ_ONLY,
    1836: _READ_ONLY,
    2002: _LOST,
    2003: ("cannot be reached", "start the server, or correct host and port in the URL"),
    2006: _LOST,
    2013: _LOST,
}
_UNKNOWN = ("does not work", "look at the log of the database")


@contextmanager
def explained(url: str, errors: type[Exception] = Exception) -> Iterator[None]:
    """Raise StoreDown, with a text that names the database at `url`, for `errors` that the block raises."""
    try:
        yield
    except StoreError:
        raise
    except errors as error:
        raise _explain(error, url) from error


@contextmanager
def explained_write(url: str) -> Iterator[None]:
    """Do as `explained`, but raise Rejected when it is the values that the database does not take."""
    with explained(url):
        try:
            yield
        except (DataError, IntegrityError, StatementError, OverflowError, UnicodeError) as error:
            if not _is_fault_of_values(error):
                raise
            raise Rejected(f"the database refuses it ({_driver_text(_cause(error))})") from error


def is_deadlock(error: BaseException) -> bool:
    """Whether the database sacrificed this transaction to another one, so that it may simply be run again."""
    return isinstance(error, DBAPIError) and _number(error.orig) in (_DEADLOCK, _CHANGED_SINCE_READ)


def _explain(error: Exception, url: str) -> StoreDown:
    problem, way_out = _find(_cause(error))
    return StoreDown(f"database {masked(url)} {problem} ({_driver_text(_cause(error))}): {way_out}")


def _is_fault_of_values(error: Exception) -> bool:
    # SQLAlchemy wraps what goes wrong while it prepares the values in a bare StatementError. What a driver cannot
    # convert, such as an int of more than 64 bits, comes as a plain Python error.
    return not isinstance(error, DBAPIError) or isinstance(error, (DataError, IntegrityError))


def _cause(error: Exception) -> BaseException:
    return error.orig if isinstance(error, StatementError) and error.orig else error


def _find(cause: BaseException) -> tuple[str, str]:
    if isinstance(cause, sqlite3.Error):
        # The low byte is the primary code; the rest tells variants of it apart.
        code = getattr(cause, "sqlite_errorcode", None)
        return _UNKNOWN if code is None else _SQLITE.get(code & 0xFF, _UNKNOWN)
    return _MARIADB.get(_number(cause), _UNKNOWN)


def _number(cause: BaseException | None) -> int:
    first = cause.args[0] if cause is not None and cause.args else None
    return first if isinstance(first, int) else 0


def _driver_text(cause: BaseException) -> str:
    number = _number(cause)
    if number and len(cause.args) > 1:
        return f"error {number}: {cause.args[1]}"
    return f"{type(cause).__name__}: {cause}"
