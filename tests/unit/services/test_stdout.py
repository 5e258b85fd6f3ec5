"""stdout prints one event a line, in either format, and holds up nobody when it is not read."""

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec
import pytest

from plugin_sdk import Event
from plugin_sdk.testing import Mesh, mesh
from plugin_sdk.wire.codec import encode_payload
from services.stdout import stdout
from services.stdout.stdout import Paper, Stdout, render_json, render_pretty
from tests.unit.sdk.coroutines import until
from tests.unit.services.support import refusal

NOON = datetime(2026, 5, 4, 12, 0, 0, 123_456, UTC)


def event(data: Any, subject: str = "user.login") -> Event:
    body = data if isinstance(data, bytes) else msgspec.msgpack.encode(data)
    return Event(subject, encode_payload(body))


class Pipe:
    """A pipe in the place of stdout, read only when the test says so."""

    def __init__(self) -> None:
        self._reader, self.descriptor = os.pipe()
        os.set_blocking(self._reader, False)
        self._text = b""

    def lines(self) -> list[str]:
        """All lines so far."""
        while chunk := self._chunk():
            self._text += chunk
        return self._text.decode().splitlines()

    def _chunk(self) -> bytes:
        try:
            return os.read(self._reader, 1 << 16)
        except BlockingIOError:
            return b""

    def fill(self) -> int:
        """Write lines until there is no room for another one; returns their number."""
        paper = Paper(self.descriptor, patience=0)
        return next(number for number in count() if not paper.write("x" * 4000))

    def hang_up(self) -> None:
        """Read no more, ever."""
        os.close(self._reader)
        self._reader = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self.descriptor)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    made = Pipe()
    monkeypatch.setattr(stdout, "STDOUT", made.descriptor)
    yield made
    made.close()


async def health_says(m: Mesh, plugin: Stdout, reason: str) -> None:
    """Returns when the plugin is not well for this reason, or, without one, is well."""
    async with asyncio.timeout(5):
        while True:
            health = await m.command(plugin, "health")
            if health["ok"] is not bool(reason) and reason in health["reason"]:
                return
            await m.settle()


async def test_every_event_is_a_line(pipe: Pipe) -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Stdout("stdout"))
        await client.publish("user.login", {"user_id": "12345"})
        await client.publish("order.created", [1, None])
        await until(lambda: len(pipe.lines()) == 2)
        first, second = (line.partition(" ")[2] for line in pipe.lines())
        assert (first, second) == ('user.login {"user_id": "12345"}', "order.created [1, null]")


async def test_only_what_the_patterns_say_is_printed(pipe: Pipe) -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Stdout("stdout"), {"patterns": ["user.*", "order.>"], "format": "json"})
        for subject in ("user.login", "shop.open", "user.a.b", "order.a.b"):
            await client.publish(subject, 1)
        await until(lambda: len(pipe.lines()) == 2)
        assert [json.loads(line)["subject"] for line in pipe.lines()] == ["user.login", "order.a.b"]


def test_a_pretty_line_has_time_subject_and_data() -> None:
    assert render_pretty(event({"name": "Zoë"}), NOON, 1000) == '12:00:00.123 user.login {"name": "Zoë"}'


def test_a_json_line_is_one_object_in_ascii() -> None:
    line = render_json(event({"name": "Zoë\x9b\u2028"}), NOON, 1000)
    assert line.isascii()
    assert json.loads(line) == {
        "time": "2026-05-04T12:00:00.123+00:00",
        "subject": "user.login",
        "data": {"name": "Zoë\x9b\u2028"},
    }


NASTY: list[Any] = [
    b"",
    b"\xc1",
    b"\xff\xff",
    {1: 2},
    {b"k": b"v"},
    {(1, 2): 3},
    float("nan"),
    float("inf"),
    NOON,
    "a\nb\r\x1b[2J\x85\u2028\0",
    "ü" * 100_000,
    {"k": "x" * 100_000},
    [[[[]]]],
    msgspec.msgpack.Ext(5, b"xx"),
]


@pytest.mark.parametrize("data", NASTY)
def test_whatever_an_event_holds_is_one_printable_line_within_the_bound(data: Any) -> None:
    subject = '"' * 256
    pretty, structured = render_pretty(event(data, subject), NOON, 700), render_json(event(data, subject), NOON, 700)
    assert pretty.isprintable()
    assert max(len(pretty.encode()), len(structured.encode())) <= 700
    assert json.loads(structured)["subject"] == subject


def test_what_is_too_large_or_no_json_is_replaced_by_its_size_in_json_lines() -> None:
    assert json.loads(render_json(event("x" * 5000), NOON, 1000)).keys() == {"time", "subject", "bytes", "cause"}
    assert json.loads(render_json(event(b"\xc1"), NOON, 1000))["cause"] == "not JSON"


def test_a_reader_that_pauses_is_waited_for_once_and_then_passed_over(pipe: Pipe) -> None:
    paper = Paper(pipe.descriptor, patience=0.01)
    written = pipe.fill()
    assert not paper.write("passed over")
    assert not paper.write("passed over")
    assert pipe.lines() == ["x" * 4000] * written, "what was written is whole"
    assert paper.write("again")
    assert pipe.lines()[-1] == "again"


@pytest.mark.parametrize(("format_", "gap"), [("pretty", "… 3 missed"), ("json", '{"missed": 3}')])
async def test_the_number_of_events_passed_over_is_printed_when_the_reader_is_back(
    pipe: Pipe, format_: str, gap: str
) -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = Stdout("stdout")
        await m.start(plugin, {"format": format_, "patience_secs": 0})
        pipe.fill()
        for number in range(3):
            await client.publish("user.login", number)
        await health_says(m, plugin, "nobody reads stdout: 3 events passed over")
        pipe.lines()
        await client.publish("user.login", 4)
        await health_says(m, plugin, "")
        assert pipe.lines()[-2] == gap


async def test_a_mesh_goes_on_while_nobody_reads_and_lines_come_again_with_the_reader(pipe: Pipe) -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = Stdout("stdout")
        await m.start(plugin, {"patience_secs": 0.1})
        async with asyncio.timeout(5):
            for number in range(5000):
                await client.publish("flood.here", {"number": number, "padding": "x" * 500})
        await health_says(m, plugin, "nobody reads stdout")
        async with asyncio.timeout(5):
            while not pipe.lines() or "flood.end" not in pipe.lines()[-1]:
                await client.publish("flood.end")
                await m.settle()
        assert any(line.endswith(" missed") for line in pipe.lines())


async def test_a_reader_that_is_gone_for_good_is_counted_as_failure_not_as_crash(pipe: Pipe) -> None:
    async with mesh() as m:
        client = await m.client()
        plugin = Stdout("stdout")
        await m.start(plugin)
        pipe.hang_up()
        await client.publish("user.login", 1)
        await until(lambda: plugin.stats()["events_failed"] == 1)


@pytest.mark.parametrize(
    "config",
    [
        {"patterns": "user.*"},
        {"patterns": [1]},
        {"format": "xml"},
        {"max_line": 10},
        {"max_line": 5000},
        {"patience_secs": "2"},
    ],
)
async def test_a_bad_configuration_is_refused_by_the_name_of_the_setting(config: dict[str, Any]) -> None:
    async with mesh() as m:
        code, text = await refusal(m.start(Stdout("stdout"), config))
        assert (code, next(iter(config)) in text) == ("bad_config", True)
