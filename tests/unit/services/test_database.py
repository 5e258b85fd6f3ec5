"""database stores and finds rows by event and by service, and lets nobody reach what is not in its allow-list."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import Bus
from plugin_sdk.testing import Mesh, mesh
from services.database.database import Database
from tests.unit.services.support import refusal, shipped_config

ORDER = {"order_id": "A1", "user_id": "12345", "total": 9.5, "paid": True}


async def begin(m: Mesh, **config: Any) -> Bus:
    client = await m.client()
    await m.start(Database("database"), shipped_config("database") | config)
    return client


async def rows(client: Bus, table: str = "orders", **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.call("database.query", {"table": table, **more}))["rows"]
    return found


async def answer_to(m: Mesh, subject: str, data: Any) -> tuple[str, dict[str, Any]]:
    """Publishes an event and returns what the plugin publishes about it."""
    m.published.clear()
    await (await m.client()).publish(subject, data)
    event = await m.published.wait("data.*", 2)
    return event.subject, event.data


async def test_an_event_stores_a_row_and_another_one_finds_it() -> None:
    async with mesh() as m:
        await begin(m)
        saved = await answer_to(m, "data.save", {"id": "s1", "table": "orders", "row": ORDER})
        assert saved == ("data.saved", {"id": "s1", "table": "orders", "key": "A1"})
        found = await answer_to(m, "data.query", {"id": 7, "table": "orders", "where": {"user_id": "12345"}})
        assert found == ("data.query_result", {"id": 7, "table": "orders", "rows": [ORDER], "more": False})


async def test_a_row_with_a_known_key_changes_the_columns_that_it_names() -> None:
    async with mesh() as m:
        client = await begin(m)
        await client.call("database.save", {"table": "orders", "row": ORDER | {"paid": False}})
        await client.call("database.save", {"table": "orders", "row": {"order_id": "A1", "paid": True}})
        assert await rows(client) == [ORDER]


async def test_rows_without_a_number_get_one() -> None:
    async with mesh() as m:
        client = await begin(m)
        for text in ("first", "second"):
            saved = await client.call("database.save", {"table": "notes", "row": {"text": text}})
        assert saved == {"table": "notes", "key": 2}
        assert await rows(client, "notes", where={"id": 1}) == [{"id": 1, "text": "first"}]


async def test_rows_are_still_there_after_a_restart() -> None:
    async with mesh() as m:
        client = await m.client()
        first = Database("database")
        await m.start(first, shipped_config("database"))
        await client.call("database.save", {"table": "orders", "row": ORDER})
        await m.stop(first)
        assert await rows(await begin(m)) == [ORDER]


async def test_rows_come_chosen_ordered_and_in_pages() -> None:
    async with mesh() as m:
        client = await begin(m)
        for number, total in enumerate((3, 1, 2, 1)):
            await client.call("database.save", {"table": "orders", "row": {"order_id": f"o{number}", "total": total}})
        ids: dict[str, Any] = {"columns": ["order_id"]}
        assert await rows(client, order_by="total", **ids) == [{"order_id": each} for each in ("o1", "o3", "o2", "o0")]
        assert await rows(client, order_by="-total", limit=1) == [
            {"order_id": "o0", "user_id": None, "total": 3.0, "paid": None}
        ]
        assert await rows(client, where={"total": [2, 3]}, **ids) == [{"order_id": "o0"}, {"order_id": "o2"}]
        assert await rows(client, where={"paid": None}, limit=2, offset=3, **ids) == [{"order_id": "o3"}]
        page = await client.call("database.query", {"table": "orders", "limit": 3})
        assert (len(page["rows"]), page["more"]) == (3, True)


async def test_an_answer_ends_before_it_is_too_large_for_the_bus() -> None:
    async with mesh() as m:
        client = await begin(m)
        for number in range(60):
            await client.call("database.save", {"table": "notes", "row": {"id": number, "text": "ü" * 10_000}})
        seen: list[int] = []
        more, pages = True, 0
        while more:
            page = await client.call("database.query", {"table": "notes", "limit": 1000, "offset": len(seen)})
            seen += [row["id"] for row in page["rows"]]
            more = page["more"]
            pages += 1
        assert pages == 2
        assert seen == list(range(60))


TABLES = [
    "orders; DROP TABLE orders",
    'orders" --',
    "sqlite_master",
    "users",
    "ORDERS",
    "",
    "x" * 5_000_000,
    None,
    7,
    ["orders"],
    {"orders": 1},
    b"orders",
]


@pytest.mark.parametrize(("subject", "rest"), [("data.save", {"row": ORDER}), ("data.query", {})])
async def test_a_table_that_is_not_allowed_cannot_be_reached(subject: str, rest: Any) -> None:
    async with mesh() as m:
        client = await begin(m)
        await client.call("database.save", {"table": "orders", "row": ORDER})
        for name in TABLES:
            done, failed = await answer_to(m, subject, {"id": "q1", "table": name, **rest})
            assert (done, failed["id"], failed["operation"]) == ("data.failed", "q1", subject)
            assert failed["code"] == "bad_request"
            assert failed["reason"].endswith("is not in the allow-list; there are notes, orders")
            assert len(failed["reason"]) < 300
        assert await rows(client) == [ORDER]


@pytest.mark.parametrize("place", ["row", "where", "columns", "order_by"])
async def test_a_column_that_is_not_allowed_cannot_be_reached(place: str) -> None:
    service = "database.save" if place == "row" else "database.query"
    async with mesh() as m:
        client = await begin(m)
        for name in ("total) FROM users --", "rowid", "*", "Total", "--", "", 7, "x" * 5_000_000):
            named = {"order_by": name, "columns": [name]}.get(place, {name: 1})
            code, text = await refusal(client.call(service, {"table": "orders", place: named}))
            assert (code, len(text) < 300) == ("bad_request", True)
            assert "is not in the allow-list; there are order_id, user_id, total, paid" in text


async def test_a_value_is_only_ever_a_value() -> None:
    values = ["'; DROP TABLE orders; --", "' OR '1'='1", "\0", "%", "ü😀", ":user_id", "?"]
    async with mesh() as m:
        client = await begin(m)
        for value in values:
            await client.call("database.save", {"table": "orders", "row": {"order_id": value, "user_id": value}})
            assert [row["order_id"] for row in await rows(client, where={"user_id": value})] == [value]
        assert {row["order_id"] for row in await rows(client)} == set(values)


@pytest.mark.parametrize(
    ("row", "code", "named"),
    [
        (None, "bad_request", "row is None"),
        ([], "bad_request", "row is []"),
        ({}, "bad_request", "row is {}"),
        ({"total": 1}, "bad_request", "row lacks 'order_id'"),
        ({"order_id": None}, "bad_request", "row lacks 'order_id'"),
        ({"order_id": 1}, "bad_request", "'order_id' is 1; expects a text"),
        ({"order_id": "x" * 256}, "too_large", "'order_id' has 256 characters"),
        ({"order_id": "A2", "user_id": "x" * 5_000_000}, "too_large", "'user_id' has 5000000 characters"),
        ({"order_id": "A2", "user_id": ["12345"]}, "bad_request", "'user_id' is"),
        ({"order_id": "A2", "total": "9.5"}, "bad_request", "'total' is '9.5'; expects a finite number"),
        ({"order_id": "A2", "total": True}, "bad_request", "'total' is True"),
        ({"order_id": "A2", "total": float("nan")}, "bad_request", "'total' is nan"),
        ({"order_id": "A2", "paid": 1}, "bad_request", "'paid' is 1; expects true or false"),
    ],
)
async def test_a_row_that_does_not_fit_is_refused_by_column(row: Any, code: str, named: str) -> None:
    async with mesh() as m:
        client = await begin(m)
        refused, text = await refusal(client.call("database.save", {"table": "orders", "row": row}))
        assert (refused, named in text, len(text) < 300) == (code, True, True)
        assert await rows(client) == []


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1, 1.5, "1", True])
async def test_a_number_that_no_column_can_hold_is_refused(number: Any) -> None:
    async with mesh() as m:
        client = await begin(m)
        request = {"table": "notes", "row": {"id": number, "text": ""}}
        assert (await refusal(client.call("database.save", request)))[0] == "bad_request"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "1; DROP TABLE orders"}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 1.0}, "offset"),
        ({"columns": []}, "columns"),
        ({"columns": "total"}, "columns"),
        ({"where": "1=1"}, "where"),
        ({"where": [1]}, "where"),
        ({"where": {"total": {"$gt": 1}}}, "total"),
        ({"where": {"order_id": ["x"] * 101}}, "order_id"),
        ({"wher": {"total": 1}}, "'wher' is unknown"),
        ({b"\xff": 1}, "is unknown"),
    ],
)
async def test_a_question_that_is_none_is_refused_by_field(change: Any, named: str) -> None:
    async with mesh() as m:
        client = await begin(m)
        code, text = await refusal(client.call("database.query", {"table": "orders", **change}))
        assert (code, named in text) == ("bad_request", True)


@pytest.mark.parametrize("subject", ["data.save", "data.query"])
async def test_an_event_that_is_no_request_is_answered_too(subject: str) -> None:
    async with mesh() as m:
        await begin(m)
        nonsense: list[Any] = [None, 7, "orders", [], {}, {"id": "x" * 300, "table": "orders"}, {"id": [1]}]
        for data in nonsense:
            done, failed = await answer_to(m, subject, data)
            assert (done, failed["code"], "id" in failed) == ("data.failed", "bad_request", False)


async def test_a_database_that_is_locked_for_long_is_the_reason_and_nothing_stops(tmp_path: Path) -> None:
    async with mesh() as m:
        url = f"sqlite:///{tmp_path}/shop.db?timeout=0.05"
        await begin(m, url=url)
        with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            done, failed = await answer_to(m, "data.save", {"table": "orders", "row": ORDER})
            assert (done, failed["code"]) == ("data.failed", "unavailable")
            assert failed["reason"] == "the database cannot do it: database is locked"
        assert (await answer_to(m, "data.save", {"table": "orders", "row": ORDER}))[0] == "data.saved"


async def test_a_constraint_of_the_database_is_a_conflict(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as made:
        made.execute("CREATE TABLE orders (order_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, total REAL, paid INTEGER)")
    async with mesh() as m:
        client = await begin(m, url=f"sqlite:///{tmp_path}/shop.db")
        code, text = await refusal(client.call("database.save", {"table": "orders", "row": {"order_id": "A1"}}))
        assert (code, text) == ("conflict", "the database refuses it: NOT NULL constraint failed: orders.user_id")


async def test_a_table_that_lacks_a_column_is_named_at_the_start(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as made:
        made.execute("CREATE TABLE orders (order_id TEXT PRIMARY KEY)")
    async with mesh() as m:
        code, text = await refusal(begin(m, url=f"sqlite:///{tmp_path}/shop.db"))
        assert (code, "table 'orders' lacks paid, total, user_id: add" in text) == ("failed", True)


async def test_health_says_when_the_database_cannot_be_reached() -> None:
    async with mesh() as m:
        plugin = Database("database")
        await m.start(plugin)
        assert await m.command(plugin, "health") == {"ok": True}
        plugin._engine.dispose()
        shutil.rmtree(plugin.data_dir)
        reason = "the database cannot do it: unable to open database file"
        assert await m.command(plugin, "health") == {"ok": False, "reason": reason}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"max_rows": 0}, "max_rows"),
        ({"max_text": 20_000}, "max_text"),
        ({"url": "no url"}, "URL"),
        ({"tables": {"t": []}}, "tables.t"),
        ({"tables": {"t": {"a": "text"}}}, "tables.t expects one column with 'key'"),
        ({"tables": {"t": {"a": "text key", "b": "text key"}}}, "tables.t expects one column with 'key'"),
        ({"tables": {"t": {"a": "number key"}}}, "tables.t.a is 'number key'"),
        ({"tables": {"t": {"a": "text key", "b": 7}}}, "tables.t.b is 7"),
        ({"tables": {"t; DROP": {"a": "text key"}}}, "'t; DROP' is no name"),
        ({"tables": {"t": {"a": "text key", "b c": "text"}}}, "'b c' is no name"),
        ({"colour": 1}, "colour"),
    ],
)
async def test_a_bad_configuration_is_refused_by_the_name_of_the_setting(config: dict[str, Any], named: str) -> None:
    async with mesh() as m:
        code, text = await refusal(m.start(Database("database"), config))
        assert (code, named in text) == ("bad_config", True)


async def test_a_shipped_table_can_be_taken_away() -> None:
    async with mesh() as m:
        client = await begin(m, tables={"notes": None, "visits": {"id": "integer key", "page": "text"}})
        assert "there are visits" in (await refusal(client.call("database.query", {"table": "notes"})))[1]
