"""hello welcomes who logs in, and refuses what is no login."""

import logging
from typing import Any

import pytest

from plugin_sdk.testing import mesh
from services.hello.hello import plugin
from tests.unit.services.support import refusal


async def test_a_login_is_answered_with_a_welcome_and_a_log_line() -> None:
    async with mesh() as m:
        await m.start(plugin)
        await (await m.client()).publish("user.login", {"user_id": "12345"})
        welcome = await m.published.wait("user.welcome")
        assert welcome.data == {"user_id": "12345", "text": "Welcome, user 12345!"}
        assert (await m.published.wait("log.hello")).data["fields"] == {"user_id": "12345"}


@pytest.mark.parametrize(
    "data", [None, "12345", [], {}, {"user_id": 12345}, {"user_id": ""}, {"user_id": "x" * 1_000_000}]
)
async def test_a_login_without_a_usable_user_id_is_logged_and_the_next_one_is_answered(
    data: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(plugin)
        await client.publish("user.login", data)
        await client.publish("user.login", {"user_id": "next"})
        assert (await m.published.wait("user.welcome")).data["user_id"] == "next"
    (failure,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "user_id of user.login is" in failure.getMessage()
    assert len(failure.getMessage()) < 500


async def test_greet_greets_by_name() -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(plugin)
        assert await client.call("hello.greet", {"name": "Ada"}) == "Hello, Ada!"
        assert await client.call("hello.greet", "Ada") == "Hello, Ada!"


@pytest.mark.parametrize(
    "body", [7, {"name": None}, {"nam": "Ada"}, {"name": "x" * 201}, {"name": "Ada", "shout": True}]
)
async def test_greet_refuses_what_is_no_name_and_says_so(body: Any) -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(plugin)
        code, text = await refusal(client.call("hello.greet", body))
        assert code == "bad_request"
        assert "name" in text
