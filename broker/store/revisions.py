"""Which migrations a database has had. The daemon asks this itself, but leaves migrating to a child process.

Alembic would cost the broker 25 MB for something that it needs once.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from sqlalchemy import Connection, column, inspect, select, table

from broker.store.errors import StoreDown
from broker.store.url import masked

# All revisions in migrations/versions, oldest first.
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]

_MIGRATE_SECS = 120
_VERSIONS = table("alembic_version", column("version_num"))


def stored_revision(connection: Connection) -> str | None:
    """Return the revision that the database is at; None when it has none of the tables yet."""
    if not inspect(connection).has_table(_VERSIONS.name):
        return None
    revision: str | None = connection.execute(select(_VERSIONS.c.version_num)).scalar()
    return revision


def refuse_newer(revision: str | None, url: str) -> None:
    """Raise StoreDown when `revision` is one that this version of plugmesh does not know."""
    if revision is not None and revision not in REVISIONS:
        raise StoreDown(
            f"database {masked(url)} is at revision '{revision}', but this plugmesh knows revisions up to '{HEAD}' "
            "only: install the newer plugmesh that made it, or use that one's `broker db downgrade` first"
        )


def upgrade_in_child(url: str) -> None:
    """Bring the database to the newest revision in a process of its own.

    Raises StoreDown with what that process says when it fails.
    """
    command = [sys.executable, "-m", "broker.store.migrate", "--tied", "-", "upgrade"]
    with tempfile.TemporaryFile() as said:
        # A session of its own, so that Ctrl-C in a terminal does not hit it in the middle. The URL goes by the pipe,
        # since arguments are public; the pipe stays open as long as the child should live.
        child = _start(command, said, url)
        try:
            _wait(child, url)
        finally:
            child.kill()
            child.wait()
        said.seek(0)
        text = said.read().decode("utf-8", "replace").strip()
    if child.returncode != 0:
        raise StoreDown(text or f"migrating database {masked(url)} ended with status {child.returncode}")


def _start(command: Sequence[str], said: IO[bytes], url: str) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
    except OSError as error:
        raise StoreDown(f"the process that migrates database {masked(url)} cannot be started: {error}") from error


def _wait(child: "subprocess.Popen[bytes]", url: str) -> None:
    assert child.stdin is not None
    # A child that ended at once has broken the pipe; its text says why.
    with suppress(BrokenPipeError), child.stdin as pipe:
        pipe.write(f"{url}\n".encode())
        pipe.flush()
        try:
            child.wait(_MIGRATE_SECS)
        except subprocess.TimeoutExpired:
            raise StoreDown(
                f"migrating database {masked(url)} took more than {_MIGRATE_SECS} s: run `broker db upgrade` by hand"
            ) from None
