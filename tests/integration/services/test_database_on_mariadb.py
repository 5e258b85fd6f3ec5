"""The database service on MariaDB: the same promises as on SQLite, and a server that goes away."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import Bus
from services.database.database import Database
from tests.mariadb import Server
from tests.unit.services.support import mesh, refusal, shipped_config

pytestmark = pytest.mark.mariadb

ORDER = {"order_id": "A1", "user_id": "Zoë😀'; DROP TABLE orders", "total": 0.1, "paid": True}
BIG = (1 << 63) - 1


def with_database(folder: Path, url: str, work: Callable[[Bus, Database], Awaitable[None]]) -> None:
    """Runs `work` beside a database service at `url`."""

    async def run() -> None:
        async with mesh(folder) as m:
            plugin = await m.start(Database("database"), shipped_config("database") | {"url": url})
            await work(await m.client(), plugin)

    asyncio.run(run())


async def save(client: Bus, table: str, row: dict[str, Any]) -> Any:
    return (await client.call("database.save", {"table": table, "row": row}))["key"]


async def rows(client: Bus, table: str, **how: Any) -> Any:
    return (await client.call("database.query", {"table": table, **how}))["rows"]


def test_rows_are_stored_changed_numbered_and_found(tmp_path: Path, mariadb_url: str) -> None:
    async def work(client: Bus, _: Database) -> None:
        assert await save(client, "orders", ORDER | {"paid": False}) == "A1"
        assert await save(client, "orders", {"order_id": "A1", "paid": True}) == "A1"
        assert await save(client, "orders", {"order_id": "A1", "paid": True}) == "A1", "also when nothing changes"
        assert await rows(client, "orders", where={"user_id": ORDER["user_id"]}) == [ORDER]
        assert await save(client, "orders", {"order_id": "a1"}) == "a1"
        assert len(await rows(client, "orders")) == 2, "keys are told apart as SQLite does"
        assert [await save(client, "notes", {"text": text}) for text in ("a", "b" * 10_000)] == [1, 2]
        assert await save(client, "notes", {"id": BIG, "text": None}) == BIG
        assert await rows(client, "notes", order_by="-id", limit=1) == [{"id": BIG, "text": None}]

    with_database(tmp_path, f"{mariadb_url}?read_timeout=10", work)


def test_a_server_that_goes_away_is_the_reason_until_it_is_back(
    tmp_path: Path, mariadb: Server, mariadb_url: str
) -> None:
    async def work(client: Bus, plugin: Database) -> None:
        mariadb.kill()
        code, text = await refusal(save(client, "orders", ORDER))
        assert (code, "Can't connect" in text) == ("unavailable", True)
        assert (await plugin.report())["ok"] is False
        mariadb.start()  # not in a thread: the server ends with the thread that started it
        assert await save(client, "orders", ORDER) == "A1"
        assert await plugin.report() == {"ok": True}

    with_database(tmp_path, mariadb_url, work)


def test_a_wrong_password_is_told_without_the_password(tmp_path: Path, mariadb_url: str) -> None:
    secret = "not-the-password"
    head, _, tail = mariadb_url.rpartition("@")
    url = f"{head.rpartition(':')[0]}:{secret}@{tail}"

    async def work(client: Bus, _: Database) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(Exception, match="Access denied") as caught:
        with_database(tmp_path, url, work)
    assert secret not in str(caught.value)
