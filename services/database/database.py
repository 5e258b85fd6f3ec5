"""Stores and finds rows, in the tables and columns that its configuration allows and nowhere else."""

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from plugin_sdk import BusError, CallError, Event, Plugin

LONGEST_KEY = 255  # characters: MySQL has no longer keys
MOST_COLUMNS = 100
MOST_CHOICES = 100
LARGEST_ANSWER = 1 << 20  # bytes, well below the size of a frame
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_integer(value: object) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _is_number(value: object) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool)


class Kind(NamedTuple):
    """What a column may hold."""

    type: Any
    fits: Callable[[object], bool]
    expected: str


KINDS = {
    "text": Kind(sa.Text(), _is_text, "a text"),
    "text key": Kind(sa.String(LONGEST_KEY), _is_text, "a text"),
    "integer": Kind(sa.BigInteger(), _is_integer, "a whole number of at most 64 bits"),
    # SQLite numbers new rows by itself only when the type of the key is called INTEGER.
    "integer key": Kind(sa.BigInteger().with_variant(sa.Integer(), "sqlite"), _is_integer, "a whole number"),
    "number": Kind(sa.Double(), _is_number, "a finite number"),
    "boolean": Kind(sa.Boolean(), _is_boolean, "true or false"),
}


@dataclass(frozen=True)
class Settings:
    """The `config` of plugin.yaml, where each is explained; raises ValueError for what makes no sense."""

    url: str = ""
    max_rows: int = 1000
    max_text: int = 10_000
    tables: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, high in (("max_rows", 10_000), ("max_text", 16_000)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= high:
                raise ValueError(f"{name} is {value!r}; expects a whole number from 1 to {high}")


class AllowedTable:
    """One table of the allow-list: makes statements from requests, or raises CallError.

    Names in a request are only ever looked up here, values only ever bound.
    """

    def __init__(self, name: str, columns: object, settings: Settings, metadata: sa.MetaData) -> None:
        if not isinstance(columns, dict) or len(columns) > MOST_COLUMNS:
            raise ValueError(f"tables.{name} expects at most {MOST_COLUMNS} lines of the form 'column: type'")
        if [str(kind).endswith(" key") for kind in columns.values()].count(True) != 1:
            raise ValueError(f"tables.{name} expects one column with 'key' after its type")
        for each in (name, *columns):
            if not _IDENTIFIER.fullmatch(each):
                raise ValueError(f"tables.{name}: {each!r} is no name; expects letters, digits and '_', at most 63")
        self._settings = settings
        self.name = name
        self.kinds = {column: _kind(f"tables.{name}.{column}", kind) for column, kind in columns.items()}
        made = [sa.Column(each, kind.type, primary_key=" key" in columns[each]) for each, kind in self.kinds.items()]
        # MySQL would otherwise take the server's character set, and hold "a" and "A" to be the same key.
        self.table = sa.Table(name, metadata, *made, mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")
        (self.key,) = self.table.primary_key

    def row(self, row: object) -> dict[str, Any]:
        """A row to save, checked."""
        if not isinstance(row, dict) or not row:
            raise CallError("bad_request", f"row is {row!r:.80}; expects a map from columns to values")
        values = {self._column(name).name: self._value(name, value) for name, value in row.items()}
        if values.get(self.key.name) is None and isinstance(self.key.type, sa.String):
            raise CallError("bad_request", f"row lacks {self.key.name!r}, the key of {self.name!r}")
        return values

    def select(self, request: dict[str, Any], limit: int) -> sa.Select[Any]:
        """The statement for a query; it asks for one row more than `limit`."""
        names = request.get("columns")
        if names is not None and (not isinstance(names, list) or not 0 < len(names) <= MOST_COLUMNS):
            raise CallError("bad_request", f"columns is {names!r:.80}; expects a list of column names")
        columns = [self._column(name) for name in names or self.kinds]
        offset = count(request, "offset", 0, 0, 1 << 62)
        chosen = sa.select(*columns).where(*self._conditions(request.get("where") or {}))
        return chosen.order_by(*self._order(request.get("order_by"))).limit(limit + 1).offset(offset)

    def _conditions(self, where: object) -> Iterator[sa.ColumnElement[bool]]:
        if not isinstance(where, dict):
            raise CallError("bad_request", f"where is {where!r:.80}; expects a map from columns to values")
        for name, value in where.items():
            column = self._column(name)
            if isinstance(value, list) and len(value) <= MOST_CHOICES:
                yield column.in_([self._value(name, each) for each in value])
            else:
                yield column == self._value(name, value)

    def _order(self, order_by: object) -> Iterable[sa.ColumnElement[Any]]:
        """By `column`, or descending by `-column`; at last by the key, so that pages do not overlap."""
        if isinstance(order_by, str) and order_by.startswith("-"):
            return self._column(order_by[1:]).desc(), self.key
        return (self.key,) if order_by is None else (self._column(order_by), self.key)

    def _column(self, name: object) -> sa.Column[Any]:
        if not isinstance(name, str) or name not in self.kinds:
            text = f"column {name!r:.80} of {self.name!r} is not in the allow-list"
            raise CallError("bad_request", f"{text}; there are {', '.join(self.kinds)}")
        return self.table.c[name]

    def _value(self, name: str, value: object) -> object:
        kind = self.kinds[name]
        if value is not None and not kind.fits(value):
            raise CallError("bad_request", f"column {name!r} is {value!r:.80}; expects {kind.expected}")
        longest = LONGEST_KEY if name == self.key.name else self._settings.max_text
        if isinstance(value, str) and len(value) > longest:
            raise CallError("too_large", f"column {name!r} has {len(value)} characters; the limit is {longest}")
        return value


def _kind(place: str, kind: object) -> Kind:
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{place} is {kind!r}; expects one of {', '.join(KINDS)}")
    return KINDS[kind]


def count(request: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    """A whole number of a request; raises CallError when it is out of bounds."""
    value: object = request.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise CallError("bad_request", f"{name} is {value!r:.80}; expects a whole number from {low} to {high}")
    return value


class Database(Plugin):
    """Rows by event and by service. What touches the database runs in threads."""

    async def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings and the allow-list."""
        self._settings = Settings(**config)
        self._metadata = sa.MetaData()
        self._tables = {
            name: AllowedTable(name, columns, self._settings, self._metadata)
            for name, columns in self._settings.tables.items()
            if columns is not None
        }
        url = self._settings.url or f"sqlite:///{self.data_dir / 'database.db'}"
        self._engine = sa.create_engine(url, pool_pre_ping=True)

    async def start(self) -> None:
        """Create the tables that are missing; raises when one that is there lacks a column."""
        await asyncio.to_thread(self._prepare)

    async def cleanup(self) -> None:
        """Close the connections."""
        if hasattr(self, "_engine"):
            self._engine.dispose()

    async def health(self) -> dict[str, Any]:
        """Not well while the database cannot be reached."""
        try:
            await asyncio.to_thread(self._fetch, sa.select(sa.literal(1)), 1)
        except CallError as error:
            return {"ok": False, "reason": error.text}
        return {"ok": True}

    @Plugin.subscribe("data.save")
    async def on_save(self, event: Event) -> None:
        """Store a row, in the order of the events, then publish `data.saved`."""
        await self._answer(event, self.save, "data.saved")

    @Plugin.subscribe("data.query", concurrency=4)
    async def on_query(self, event: Event) -> None:
        """Find rows, then publish `data.query_result`."""
        await self._answer(event, self.query, "data.query_result")

    @Plugin.service("save")
    def save(self, request: Any) -> dict[str, Any]:
        """Change the row of `table` that has the key of `row`, or insert it; return its key."""
        allowed = self._allowed(request, ("table", "row"))
        values = allowed.row(request.get("row"))
        key = values.get(allowed.key.name)
        with self._transaction() as connection:
            change = sa.update(allowed.table).where(allowed.key == key).values(values)
            if key is None or not connection.execute(change).rowcount:
                inserted = connection.execute(sa.insert(allowed.table).values(values))
                (key,) = inserted.inserted_primary_key or (key,)
        return {"table": allowed.name, "key": key}

    @Plugin.service("query")
    def query(self, request: Any) -> dict[str, Any]:
        """Return the rows of `table` that equal `where`; `more` says whether there are others after them."""
        allowed = self._allowed(request, ("table", "where", "columns", "order_by", "limit", "offset"))
        most = self._settings.max_rows
        limit = count(request, "limit", min(100, most), 1, most)
        rows, more = self._fetch(allowed.select(request, limit), limit)
        return {"table": allowed.name, "rows": rows, "more": more}

    async def _answer(self, event: Event, work: Callable[[Any], dict[str, Any]], done: str) -> None:
        """Publish the result of `work` as `done`, or as `data.failed` why there is none; with the id of the request."""
        reply: dict[str, Any] = {}
        try:
            request = event.data
            if isinstance(request, dict) and "id" in request:
                reply["id"] = _request_id(request["id"])
                request = {name: value for name, value in request.items() if name != "id"}
            result = await asyncio.to_thread(work, request)
        except BusError as error:
            failure = {"operation": event.subject, "code": error.code, "reason": error.text}
            await self.publish("data.failed", reply | failure)
        else:
            await self.publish(done, reply | result)

    def _allowed(self, request: object, fields: tuple[str, ...]) -> AllowedTable:
        if not isinstance(request, dict):
            raise CallError("bad_request", f"the request is {request!r:.80}; expects a map with {', '.join(fields)}")
        for each in request:
            if each not in fields:
                raise CallError("bad_request", f"{each!r:.80} is unknown; there are {', '.join(fields)}")
        name = request.get("table")
        if not isinstance(name, str) or name not in self._tables:
            tables = ", ".join(self._tables) or "none"
            raise CallError("bad_request", f"table {name!r:.80} is not in the allow-list; there are {tables}")
        return self._tables[name]

    def _prepare(self) -> None:
        with self._transaction() as connection:
            self._metadata.create_all(connection)
            inspector = sa.inspect(connection)
            for name, allowed in self._tables.items():
                lacking = set(allowed.kinds) - {each["name"] for each in inspector.get_columns(name)}
                if lacking:
                    columns = ", ".join(sorted(lacking))
                    raise ValueError(f"table {name!r} lacks {columns}: add that to it, or correct config.tables.{name}")

    def _fetch(self, statement: sa.Select[Any], limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Up to `limit` rows that fit into one answer, and whether there are more."""
        rows: list[dict[str, Any]] = []
        size = 0
        with self._transaction() as connection:
            for row in connection.execute(statement):
                size += sum(len(str(value).encode()) for value in row)
                if len(rows) == limit or (rows and size > LARGEST_ANSWER):
                    return rows, True
                rows.append({str(name): value for name, value in row._mapping.items()})  # SQLAlchemy's own kind of str
        return rows, False

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """A transaction. Errors become CallErrors, without the statement, whose values may be confidential."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise CallError("conflict", f"the database refuses it: {error.orig}") from error
        except OperationalError as error:
            raise CallError("unavailable", f"the database cannot do it: {error.orig}") from error
        except SQLAlchemyError as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise CallError("failed", f"{type(error).__name__}: {reason}") from error


def _request_id(value: object) -> object:
    if not _is_integer(value) and not (isinstance(value, str) and len(value) <= LONGEST_KEY):
        raise CallError("bad_request", f"id is {value!r:.80}; expects a text of at most {LONGEST_KEY} characters")
    return value


if __name__ == "__main__":
    Database("database", version="1.0.0", description="Stores and finds rows").run()
