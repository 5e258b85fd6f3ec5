"""Shutdown: every phase gets its turn, what was left is said, and the guard needs nobody's help."""

import asyncio
import threading

import pytest

from broker.shutdown import EX_UNFINISHED, Guard, Phase, run_phases


async def test_every_phase_runs_in_order_whatever_became_of_the_one_before() -> None:
    entered: list[str] = []

    async def fine(_: float) -> str:
        return ""

    async def broken(_: float) -> str:
        raise RuntimeError("no disk")

    async def partly(_: float) -> str:
        return "two plugins remained"

    phases = [Phase("one", broken, 0.5), Phase("two", partly, 0.5), Phase("three", fine, 1.0)]
    undone = await run_phases(phases, 5.0, entered.append)
    assert entered == ["one", "two", "three"]
    assert undone == ["one: failed with RuntimeError: no disk", "two: two plugins remained"]


async def test_each_phase_gets_its_share_of_the_time_that_is_left() -> None:
    limits: list[float] = []

    async def note(limit: float) -> str:
        limits.append(limit)
        return ""

    await run_phases([Phase("half", note, 0.5), Phase("rest", note, 1.0)], 10.0, lambda _: None)
    assert limits[0] == pytest.approx(5.0, abs=0.1)
    assert limits[1] == pytest.approx(10.0, abs=0.1)


async def test_a_phase_that_does_not_keep_its_time_is_cut_off_and_named() -> None:
    async def hang(_: float) -> str:
        await asyncio.Event().wait()
        return ""

    undone = await run_phases([Phase("stuck", hang, 0.5)], 0.2, lambda _: None)
    assert undone == ["stuck: not finished within 0.1 s"]


def test_the_guard_ends_the_process_from_its_own_thread_and_names_the_phase(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str | int] = []
    left = threading.Event()

    def leave(status: int) -> None:
        done.append(status)
        left.set()

    guard = Guard(0.05, lambda: done.append("killed"), leave)
    guard.entered("stop plugins")
    guard.arm()
    assert left.wait(5.0)
    assert done == ["killed", EX_UNFINISHED]
    assert "unfinished: stop plugins" in caplog.text


def test_a_guard_that_was_disarmed_ends_nothing() -> None:
    ended = threading.Event()
    guard = Guard(0.05, ended.set, lambda _: ended.set())
    guard.arm()
    guard.disarm()
    assert not ended.wait(0.2)


def test_without_force_quit_only_a_second_signal_ends_the_process() -> None:
    statuses: list[int] = []
    guard = Guard(0.01, lambda: None, statuses.append)
    guard.arm(watch=False)
    guard.force("by a second signal")
    assert statuses == [EX_UNFINISHED]
