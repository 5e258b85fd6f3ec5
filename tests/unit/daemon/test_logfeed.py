"""The feed of what plugins print: whole lines, to those who listen, at a bounded rate."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from broker.daemon.logfeed import BURST_LINES, LINES_PER_SEC, LogFeed


class Stage:
    """A feed with a bus that keeps what is published, a clock that is moved by hand, and listeners by name."""

    def __init__(self) -> None:
        self.now = 0.0
        self.names: set[str] = {"logger"}
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str] | None] = []
        self.feed = LogFeed(self.publish, lambda subject: self.names, lambda: self.now)

    async def publish(self, subject: str, data: dict[str, Any], headers: dict[str, str] | None) -> None:
        self.published.append((subject, data))
        self.headers.append(headers)

    async def messages(self) -> list[str]:
        """What has been published since the last look."""
        await asyncio.sleep(0)
        taken, self.published = self.published, []
        return [data["message"] for _, data in taken]


def play(scenario: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario(Stage())

    asyncio.run(whole())


def test_lines_are_passed_on_whole_with_their_level() -> None:
    async def scenario(stage: Stage) -> None:
        stage.feed.take("hello", b"ERROR no pa")
        assert await stage.messages() == []
        stage.feed.take("hello", b"per\n  at all\nfine\n")
        await asyncio.sleep(0)
        assert stage.published == [
            ("$log.hello", {"message": "ERROR no paper", "level": "error", "logger": "hello"}),
            ("$log.hello", {"message": "  at all", "level": "error", "logger": "hello"}),
            ("$log.hello", {"message": "fine", "level": "info", "logger": "hello"}),
        ]

    play(scenario)


def test_the_trace_of_a_line_goes_before_it_and_is_recorded_no_further() -> None:
    async def scenario(stage: Stage) -> None:
        ids = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        stage.feed.take("hello", f"seen trace_id={ids[0]} span_id={ids[1]}\ntrace_id=none\n".encode())
        assert await stage.messages() == ["seen", "trace_id=none"]
        assert stage.headers == [{"traceparent": f"00-{ids[0]}-{ids[1]}-00"}, {}]

    play(scenario)


def test_nothing_is_passed_on_while_nobody_listens_and_nothing_of_a_listener() -> None:
    async def scenario(stage: Stage) -> None:
        stage.feed.take("logger", b"what I heard\n")
        assert await stage.messages() == []
        stage.names.clear()
        stage.now = 1.0
        stage.feed.take("hello", b"one\n")
        stage.names.add("logger")
        stage.now = 1.1
        stage.feed.take("hello", b"two\n")
        stage.now = 2.0
        stage.feed.take("hello", b"three\n")
        assert await stage.messages() == ["three"]

    play(scenario)


def test_a_flood_is_cut_off_and_the_number_of_lost_lines_is_told() -> None:
    async def scenario(stage: Stage) -> None:
        stage.feed.take("hello", b"x\n" * (int(BURST_LINES) + 50))
        assert len(await stage.messages()) == BURST_LINES
        stage.now = 1.0
        stage.feed.take("hello", b"after\n")
        told, line = await stage.messages()
        assert told == f"[50 lines were not passed on: written faster than {LINES_PER_SEC:g} a second]"
        assert line == "after"

    play(scenario)


def test_a_line_without_an_end_does_not_grow() -> None:
    async def scenario(stage: Stage) -> None:
        for _ in range(100):
            stage.feed.take("hello", b"x" * 1000)
        stage.feed.take("hello", b"\n")
        (line,) = await stage.messages()
        assert len(line) == 4000

    play(scenario)
