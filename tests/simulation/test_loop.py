"""The virtual event loop: time jumps, order is fixed, and standing still is noticed."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.simulation.loop import LIVELOCK_TURNS, RESOLUTION, START, Stalled, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


def test_an_hour_is_over_at_once(loop: VirtualLoop) -> None:
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == START + 3600


def test_timers_run_in_the_order_of_their_times_and_then_of_their_making(loop: VirtualLoop) -> None:
    ran: list[int] = []
    for number, secs in enumerate((0.2, 0.1, 0.1, 0.0)):
        loop.call_later(secs, ran.append, number)
    loop.run_until_complete(asyncio.sleep(1))
    assert ran == [3, 1, 2, 0]


def test_a_timer_may_run_early_by_the_resolution_of_the_clock(loop: VirtualLoop) -> None:
    ran: list[float] = []
    loop.call_later(1.0, int)
    loop.call_later(1.0 + RESOLUTION / 4, lambda: ran.append(loop.time()))
    loop.run_until_complete(asyncio.sleep(2))
    assert ran == [START + 1.0]


def test_a_cancelled_timer_does_not_run(loop: VirtualLoop) -> None:
    loop.call_later(1.0, pytest.fail, "it ran").cancel()
    loop.run_until_complete(asyncio.sleep(2))


def test_waiting_for_nothing_is_noticed(loop: VirtualLoop) -> None:
    future = loop.create_future()
    with pytest.raises(Stalled, match="nothing is left that could wake it"):
        loop.run_until_complete(future)


def test_waking_oneself_for_ever_is_noticed(loop: VirtualLoop) -> None:
    async def spin() -> None:
        for _ in range(2 * LIVELOCK_TURNS):
            await asyncio.sleep(0)

    task = loop.create_task(spin())
    with pytest.raises(Stalled, match="wakes itself for ever"):
        loop.run_until_complete(task)
    task.cancel()
