"""The database service on MariaDB: the same promises as on SQLite, and a server that goes away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from plugin_sdk import Bus
from plugin_sdk.testing import mesh
from services.database.database import Database
from tests.mariadb_server import Server
from tests.unit.services.support import refusal, shipped_config

pytestmark = pytest.mark.mariadb

ORDER = {"order_id": "A1", "user_id": "Zoë😀'; DROP TABLE orders", "total": 0.1, "paid": True}
Health = Callable[[], Awaitable[Any]]
BIG = (1 << 63) - 1


def with_database(url: str, work: Callable[[Bus, Health], Awaitable[None]]) -> None:
    """Runs `work` beside a database service at `url`."""

    async def run() -> None:
        async with mesh() as m:
            plugin = Database("database")
            await m.start(plugin, shipped_config("database") | {"url": url})

            async def health() -> Any:
                return await m.command(plugin, "health")

            await work(await m.client(), health)

    asyncio.run(run())


async def save(client: Bus, table: str, row: dict[str, Any]) -> Any:
    return (await client.call("database.save", {"table": table, "row": row}))["key"]


async def rows(client: Bus, table: str, **how: Any) -> Any:
    return (await client.call("database.query", {"table": table, **how}))["rows"]


def test_rows_are_stored_changed_numbered_and_found(mariadb_url: str) -> None:
    async def work(client: Bus, _: Health) -> None:
        assert await save(client, "orders", ORDER | {"paid": False}) == "A1"
        assert await save(client, "orders", {"order_id": "A1", "paid": True}) == "A1"
        assert await save(client, "orders", {"order_id": "A1", "paid": True}) == "A1", "also when nothing changes"
        assert await rows(client, "orders", where={"user_id": ORDER["user_id"]}) == [ORDER]
        assert await save(client, "orders", {"order_id": "a1"}) == "a1"
        assert len(await rows(client, "orders")) == 2, "keys are told apart as SQLite does"
        assert [await save(client, "notes", {"text": text}) for text in ("a", "b" * 10_000)] == [1, 2]
        assert await save(client, "notes", {"id": BIG, "text": None}) == BIG
        assert await rows(client, "notes", order_by="-id", limit=1) == [{"id": BIG, "text": None}]

    with_database(f"{mariadb_url}?read_timeout=10", work)


def test_a_server_that_goes_away_is_the_reason_until_it_is_back(mariadb: Server, mariadb_url: str) -> None:
    async def work(client: Bus, health: Health) -> None:
        mariadb.kill()
        code, text = await refusal(save(client, "orders", ORDER))
        assert (code, "Can't connect" in text) == ("unavailable", True)
        assert (await health())["ok"] is False
        mariadb.start()  # not in a thread: the server ends with the thread that started it
        assert await save(client, "orders", ORDER) == "A1"
        assert await health() == {"ok": True}

    with_database(mariadb_url, work)


def test_a_wrong_password_is_told_without_the_password(mariadb_url: str) -> None:
    secret = "not-the-password"
    head, _, tail = mariadb_url.rpartition("@")
    url = f"{head.rpartition(':')[0]}:{secret}@{tail}"

    async def work(client: Bus, _: Health) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(Exception, match="Access denied") as caught:
        with_database(url, work)
    assert secret not in str(caught.value)
