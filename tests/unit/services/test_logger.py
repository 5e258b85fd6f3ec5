"""logger keeps every line that it can, one message a line, in files of bounded size."""

import re
from typing import Any

import pytest

from plugin_sdk.testing import mesh
from services.logger.logger import Logger
from tests.unit.sdk.coroutines import until
from tests.unit.services.support import refusal


def logger() -> Logger:
    return Logger("logger")


def lines(plugin: Logger) -> list[str]:
    """Level, name and message of what is in the files, oldest first."""
    files = sorted(plugin.data_dir.glob("mesh.log*"), reverse=True)
    return [line.partition(" ")[2] for file in files for line in file.read_text("utf-8").splitlines()]


def sizes(plugin: Logger) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in plugin.data_dir.iterdir()}


async def test_a_line_is_in_the_file_when_the_reply_comes() -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = logger()
        await m.start(plugin)
        request = {"level": "warning", "message": "slow", "logger": "shop", "fields": {"secs": 2.5, "order_id": "A1"}}
        assert await client.call("logger.write", request) is None
        assert lines(plugin) == ["WARNING shop: slow secs=2.5 order_id='A1'"]
        (line,) = await client.call("logger.tail")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z WARNING shop: slow .*", line)


async def test_published_lines_are_kept_with_the_name_from_their_subject() -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = logger()
        await m.start(plugin)
        await client.publish("log.shop.cart", {"message": "added", "level": "debug"})
        await client.publish("log.shop", "just a text")
        await until(lambda: len(lines(plugin)) == 2)
        assert lines(plugin) == ["DEBUG shop.cart: added", "INFO shop: just a text"]


async def test_lines_also_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(logger())
        await client.call("logger.write", "hello")
        assert capfd.readouterr().err == "INFO -: hello\n"


async def test_a_message_cannot_pretend_to_be_two_lines() -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = logger()
        await m.start(plugin)
        for nasty in ("a\nb", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\x85b", "a\0b"):
            await client.call("logger.write", {"message": nasty, "logger": "x\ny", "fields": {"k\n": "v\n"}})
        assert len(lines(plugin)) == 6
        assert lines(plugin)[0] == r"INFO x\ny: a\nb k\n='v\n'"
        assert lines(plugin)[2].startswith(r"INFO x\ny: a\x1b[2Jb")


async def test_a_long_line_is_cut_to_its_bound_in_bytes() -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = logger()
        await m.start(plugin, {"max_line": 100})
        await client.call("logger.write", "ü" * 1_000_000)
        (line,) = lines(plugin)
        assert len(line.encode()) <= 100
        assert line.endswith("ü…")


async def test_files_are_put_aside_when_full_and_the_oldest_removed() -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = logger()
        await m.start(plugin, {"max_bytes": 4096, "backups": 2, "stderr": False})
        for number in range(300):
            await client.publish("log.test", f"line {number}")
        await until(lambda: bool(lines(plugin)) and lines(plugin)[-1].endswith(" 299"))
        assert sorted(sizes(plugin)) == ["mesh.log", "mesh.log.1", "mesh.log.2"]
        assert max(sizes(plugin).values()) <= 4096
        kept = [int(line.split()[-1]) for line in lines(plugin)]
        assert kept == list(range(kept[0], 300)), "nothing is missing in the middle"
        tail = await client.call("logger.tail", {"n": 60})
        assert [line.split()[-1] for line in tail] == [str(number) for number in range(240, 300)]


async def test_what_is_below_the_level_is_not_written() -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = logger()
        await m.start(plugin, {"level": "warning"})
        for level in ("debug", "info", "warning", "error", "critical"):
            await client.call("logger.write", {"message": "m", "level": level})
        assert [line.split()[0] for line in lines(plugin)] == ["WARNING", "ERROR", "CRITICAL"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (7, "message"),
        ({"level": "info"}, "message"),
        ({"message": ["a"]}, "message"),
        ({"message": "m", "level": "loud"}, "level"),
        ({"message": "m", "level": ["info"]}, "level"),
        ({"message": "m", "logger": 1}, "logger"),
        ({"message": "m", "fields": [1]}, "fields"),
        ({"message": "m", "fields": ""}, "fields"),
    ],
)
async def test_what_is_no_line_is_refused_by_name_and_the_next_one_is_written(body: Any, named: str) -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = logger()
        await m.start(plugin)
        code, text = await refusal(client.call("logger.write", body))
        assert (code, named in text) == ("bad_request", True)
        await client.call("logger.write", "next")
        assert lines(plugin) == ["INFO -: next"]


@pytest.mark.parametrize(
    "data", [None, 7, ["a"], {"level": "loud", "message": "m"}, {"colour": "red"}, {1: 2}, {"level": "info"}]
)
async def test_an_event_that_is_no_line_is_kept_as_a_warning(data: Any) -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = logger()
        await m.start(plugin)
        await client.publish("log.shop", data)
        await client.publish("log.shop", "next")
        await until(lambda: len(lines(plugin)) == 2)
        assert lines(plugin)[0].startswith("WARNING shop: malformed log event: ")
        assert lines(plugin)[1] == "INFO shop: next"


@pytest.mark.parametrize("n", [0, -1, 1001, "5", None, True, 1.5])
async def test_a_tail_of_a_nonsense_length_is_refused(n: Any) -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(logger())
        assert (await refusal(client.call("logger.tail", {"n": n})))[0] == "bad_request"


async def test_a_file_that_cannot_be_written_is_told_to_the_caller_and_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = logger()
        await m.start(plugin)

        def full(_: str) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(plugin._sink.stream, "write", full)
            code, text = await refusal(client.call("logger.write", "lost"))
            assert (code, text.endswith("mesh.log cannot be written: No space left on device")) == ("failed", True)
            assert await m.command(plugin, "health") == {"ok": False, "reason": text, "lost": 1}
        await client.call("logger.write", "kept")
        assert await m.command(plugin, "health") == {"ok": True, "reason": "", "lost": 1}


@pytest.mark.parametrize(
    "config",
    [
        {"level": "loud"},
        {"max_bytes": 1},
        {"max_bytes": "5000"},
        {"backups": 0},
        {"max_line": True},
        {"stderr": "no"},
        {"colour": 1},
    ],
)
async def test_a_bad_configuration_is_refused_by_the_name_of_the_setting(config: dict[str, Any]) -> None:
    async with mesh() as m:
        code, text = await refusal(m.start(logger(), config))
        assert (code, next(iter(config)) in text) == ("bad_config", True)
