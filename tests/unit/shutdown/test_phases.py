"""The phases run in order, each within its time, and say what they do."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable

import pytest

from broker.shutdown.phases import Phase, Shutdown
from broker.shutdown.windows import INNER, Window

WIDE, NARROW = Window(by=1.0), Window(by=1.0, most=0.01)


def phase(name: str, run: Callable[[float], Awaitable[str]], window: Window = WIDE, waits_for: str = "") -> Phase:
    return Phase(name, run, window, lambda: waits_for)


async def nothing(limit: float) -> str:
    return ""


async def for_ever(limit: float) -> str:
    await asyncio.Event().wait()
    return ""


def run(*phases: Phase, total: float = 5.0) -> list[str]:
    return asyncio.run(Shutdown(phases, total).run())


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_each_phase_is_logged_when_it_begins_and_with_its_time_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    assert run(phase("one", nothing), phase("two", nothing)) == []
    text = "\n".join(caplog.messages)
    assert re.search(
        r"one \(1 of 2\), within 5\.0 s\none \(1 of 2\) took 0\.\d\d s\ntwo \(2 of 2\), within [45]\.\d s\ntwo", text
    )


def test_a_phase_is_told_less_time_than_it_has_so_that_it_can_end_by_itself() -> None:
    told = []

    async def note(limit: float) -> str:
        told.append(limit)
        return ""

    run(phase("note", note), total=10.0)
    assert told == [pytest.approx(10.0 * INNER, abs=0.1)]


def test_what_a_phase_leaves_undone_is_returned_under_its_name_and_the_next_one_runs() -> None:
    async def half(limit: float) -> str:
        return "2 writes are missing"

    seen = []

    async def note(limit: float) -> str:
        seen.append("here")
        return ""

    assert run(phase("flush", half), phase("close", note)) == ["flush: 2 writes are missing"]
    assert seen == ["here"]


def test_a_phase_that_does_not_end_is_cut_off_and_what_it_waits_for_is_told() -> None:
    undone = run(phase("stop plugins", for_ever, NARROW, "plugin 'a'"), phase("close", nothing))
    assert undone == ["stop plugins: not finished within 0.1 s, still waiting for plugin 'a'"]


def test_a_phase_that_does_not_let_itself_be_cancelled_does_not_hold_up_the_others() -> None:
    async def scenario() -> list[str]:
        let_go = asyncio.Event()

        async def stubborn(limit: float) -> str:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue
            return ""

        undone = await Shutdown([phase("stubborn", stubborn, NARROW), phase("close", nothing)], 5.0).run()
        let_go.set()
        return undone

    assert asyncio.run(scenario()) == ["stubborn: not finished within 0.1 s"]


def test_a_phase_that_fails_is_told_with_its_error_and_the_next_one_runs(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(limit: float) -> str:
        raise RuntimeError("no such table")

    assert run(phase("flush", broken), phase("close", nothing)) == ["flush: failed with RuntimeError: no such table"]
    assert "close (2 of 2)" in caplog.text


def test_a_long_phase_says_again_and_again_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        told = asyncio.Event()
        asked = []

        def waits_for() -> str:
            asked.append(1)
            if len(asked) == 3:
                told.set()
            return f"{4 - len(asked)} plugins"

        async def until_told(limit: float) -> str:
            await told.wait()
            return ""

        assert await Shutdown([Phase("stop", until_told, WIDE, waits_for)], 5.0, progress_secs=0.01).run() == []

    asyncio.run(scenario())
    waits = [line for line in caplog.messages if "waiting for" in line]
    assert [line.partition(" since ")[0] for line in waits[:2]] == [
        "stop, waiting for 3 plugins",
        "stop, waiting for 2 plugins",
    ]


def test_what_is_unfinished_can_be_asked_while_it_runs_and_is_nothing_afterwards() -> None:
    async def scenario() -> tuple[str, str]:
        seen = []

        async def look(limit: float) -> str:
            seen.append(shutdown.unfinished())
            return ""

        shutdown = Shutdown([phase("stop plugins", look, waits_for="a (stopping)")], 5.0)
        await shutdown.run()
        return seen[0], shutdown.unfinished()

    assert asyncio.run(scenario()) == ("stop plugins, waiting for a (stopping)", "")


def test_a_wait_that_cannot_be_told_hinders_nothing() -> None:
    def broken() -> str:
        raise RuntimeError("dictionary changed size during iteration")

    (undone,) = asyncio.run(Shutdown([Phase("stop", for_ever, NARROW, broken)], 5.0).run())
    assert undone.startswith("stop: not finished within 0.1 s")
