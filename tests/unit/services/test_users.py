"""users answers who a user is, keeps new ones, and refuses what would harm a mail later."""

import asyncio
import sqlite3
from typing import Any

import pytest

from plugin_sdk.testing import mesh
from services.users.users import Users
from tests.unit.services.support import refusal, shipped_config

ADA = {"user_id": "12345", "name": "Ada Lovelace", "email": "ada@example.org"}
EMMY = {"user_id": "7", "name": "Emmy Noether", "email": "emmy@example.org"}


async def test_the_user_of_the_demo_is_there() -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Users("users"), shipped_config("users"))
        assert await client.call("users.get", {"user_id": "12345"}) == ADA
        assert await client.call("users.get", "12345") == ADA
        assert await client.call("users.list") == [ADA]


async def test_a_user_who_is_not_there_is_not_found() -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Users("users"))
        assert await refusal(client.call("users.get", {"user_id": "9"})) == ("not_found", "there is no user '9'")


async def test_a_user_that_was_added_is_still_there_after_a_restart_and_not_overwritten() -> None:
    async with mesh() as m:
        client = await m.client()
        first = Users("users")
        await m.start(first)
        assert await client.call("users.add", EMMY) == EMMY
        await m.stop(first)
        await m.start(Users("users"), {"users": [EMMY | {"name": "Somebody else"}, ADA]})
        assert await client.call("users.list") == [ADA, EMMY]


async def test_an_id_is_given_once() -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Users("users"), {"users": [ADA]})
        code, text = await refusal(client.call("users.add", ADA | {"name": "Mallory"}))
        assert (code, text) == ("already_exists", "there is a user '12345' already")
        assert await client.call("users.get", "12345") == ADA


async def test_a_list_is_read_in_pages() -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Users("users"), {"users": [ADA | {"user_id": f"u{number}"} for number in range(5)]})
        first = await client.call("users.list", {"limit": 3})
        rest = await client.call("users.list", {"limit": 3, "after": first[-1]["user_id"]})
        assert [user["user_id"] for user in first + rest] == ["u0", "u1", "u2", "u3", "u4"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"user_id": 7}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a b"}, "user_id"),
        ({"user_id": "x" * 65}, "user_id"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": ["Emmy"]}, "name"),
        ({"name": "Emmy\r\nBcc: all@example.org"}, "name"),
        ({"name": "x" * 5_000_000}, "name"),
        ({"email": None}, "email"),
        ({"email": "emmy"}, "email"),
        ({"email": "emmy@example.org\nBcc: all@example.org"}, "email"),
        ({"email": "emmy@example.org, all@example.org"}, "email"),
        ({"email": "Emmy <emmy@example.org>"}, "email"),
        ({"email": "é@example.org"}, "email"),
        ({"role": "admin"}, "email, name, user_id"),
    ],
)
async def test_a_user_who_cannot_be_kept_is_refused_by_field(change: Any, named: str) -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Users("users"))
        code, text = await refusal(client.call("users.add", EMMY | change))
        assert (code, named in text, len(text) < 300) == ("bad_request", True, True)
        assert await client.call("users.list") == []


@pytest.mark.parametrize(
    "body",
    [
        None,
        12345,
        {"user_id": 12345},
        {"id": "12345"},
        [],
        "' OR '1'='1",
        "x" * 5_000_000,
        {"user_id": "12345", "x": 1},
    ],
)
async def test_a_question_that_is_none_is_refused(body: Any) -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Users("users"), {"users": [ADA]})
        assert (await refusal(client.call("users.get", body)))[0] == "bad_request"
        assert await client.call("users.get", "12345") == ADA


@pytest.mark.parametrize(
    "body", [{"limit": 0}, {"limit": 1001}, {"limit": "5"}, {"after": 5}, {"after": "'; DROP TABLE users"}]
)
async def test_a_page_out_of_bounds_is_refused(body: Any) -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Users("users"))
        assert (await refusal(client.call("users.list", body)))[0] == "bad_request"


@pytest.mark.parametrize(
    "config", [{"users": [{"user_id": "1"}]}, {"users": [ADA | {"email": "?"}]}, {"users": [7]}, {"colour": 1}]
)
async def test_a_bad_configuration_is_refused(config: dict[str, Any]) -> None:
    async with mesh() as m:
        code, text = await refusal(m.start(Users("users"), config))
        assert (code, next(iter(config)) in text) == ("bad_config", True)


async def test_a_file_that_is_no_database_is_named() -> None:
    async with mesh() as m:
        first = Users("users")
        await m.start(first)
        await m.stop(first)
        (first.data_dir / "users.db").write_text("this is not a database, and long enough to be none")
        code, text = await refusal(m.start(Users("users")))
        assert code == "failed"
        assert text.endswith("users.db cannot be used: file is not a database; repair it or move it away")


async def test_a_locked_file_is_waited_for() -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = Users("users")
        await m.start(plugin)
        other = sqlite3.connect(plugin.data_dir / "users.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.create_task(client.call("users.add", EMMY))
        assert await client.call("users.list") == []
        assert not adding.done()
        other.execute("COMMIT")
        assert await adding == EMMY
        other.close()
