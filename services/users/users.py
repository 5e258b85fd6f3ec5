"""Answers who a user is, from an SQLite file in the plugin's data directory."""

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from plugin_sdk import CallError, Plugin

LONGEST_LIST = 1000
_USER_ID = re.compile(r"[A-Za-z0-9_.@+-]{1,64}")
# Stricter than RFC 5321 section 4.1.2: no quoted local parts, no address literals.
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")

_SELECT = "SELECT user_id, name, email FROM users"
_TABLE = "CREATE TABLE IF NOT EXISTS users (user_id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL)"


class Users(Plugin):
    """Users by id. Handlers are plain functions, so that SQLite runs in threads."""

    async def initialize(self, config: dict[str, Any]) -> None:
        """Check the users to begin with."""
        self._first = _first_users(**config)

    async def start(self) -> None:
        """Create what is missing; raises when the file is none of ours."""
        self._path = self.data_dir / "users.db"
        await asyncio.to_thread(self._prepare)

    @Plugin.service("get")
    def get_user(self, user_id: str) -> dict[str, str]:
        """Return the user's record, or the error `not_found`."""
        with self._database() as database:
            row = database.execute(f"{_SELECT} WHERE user_id = ?", (_check_id(user_id),)).fetchone()
        if row is None:
            raise CallError("not_found", f"there is no user {user_id!r}")
        return dict(row)

    @Plugin.service("list")
    def list_users(self, after: str = "", limit: int = 100) -> list[dict[str, str]]:
        """Return up to `limit` users in the order of their ids, from the one after `after` on."""
        if type(limit) is not int or not 1 <= limit <= LONGEST_LIST:
            raise CallError("bad_request", f"limit is {limit!r:.80}; expects a whole number from 1 to {LONGEST_LIST}")
        query = f"{_SELECT} WHERE user_id > ? ORDER BY user_id LIMIT ?"
        with self._database() as database:
            return [dict(row) for row in database.execute(query, (after and _check_id(after), limit))]

    @Plugin.service("add")
    def add_user(self, user_id: str, name: str, email: str) -> dict[str, str]:
        """Keep a new user and return the record, or the error `already_exists`."""
        user = _checked(user_id, name, email)
        try:
            with self._database() as database:
                database.execute("INSERT INTO users VALUES (:user_id, :name, :email)", user)
        except sqlite3.IntegrityError:
            raise CallError("already_exists", f"there is a user {user_id!r} already") from None
        return user

    def _prepare(self) -> None:
        try:
            with self._database() as database:
                database.execute(_TABLE)
                database.executemany("INSERT OR IGNORE INTO users VALUES (:user_id, :name, :email)", self._first)
        except sqlite3.DatabaseError as error:
            raise RuntimeError(f"{self._path} cannot be used: {error}; repair it or move it away") from error

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction: it is all in the file afterwards, or nothing of it."""
        with closing(sqlite3.connect(self._path)) as database, database:
            database.row_factory = sqlite3.Row
            yield database


def _first_users(users: list[dict[str, str]] | None = None) -> list[dict[str, str]]:
    """The `config` of plugin.yaml; raises ValueError when a user in it cannot be kept."""
    try:
        return [_checked(**user) for user in users or ()]
    except (CallError, TypeError) as error:
        raise ValueError(f"users: {error}") from None


def _checked(user_id: object, name: object, email: object) -> dict[str, str]:
    """The record, if it may be kept: its texts end up in the headers of mails."""
    if not isinstance(name, str) or not 0 < len(name.strip()) <= len(name) <= 200 or not name.isprintable():
        raise CallError("bad_request", f"name is {name!r:.80}; expects 1 to 200 printable characters")
    if not isinstance(email, str) or len(email) > 254 or not _EMAIL.fullmatch(email):
        raise CallError("bad_request", f"email is {email!r:.80}; expects an address such as ada@example.org")
    return {"user_id": _check_id(user_id), "name": name, "email": email}


def _check_id(user_id: object) -> str:
    if not isinstance(user_id, str) or not _USER_ID.fullmatch(user_id):
        raise CallError("bad_request", f"user_id is {user_id!r:.80}; expects 1 to 64 letters, digits or _.@+-")
    return user_id


if __name__ == "__main__":
    Users("users", version="1.0.0", description="Answers who a user is").run()
