"""Slots bound how many plugins are on their way up, and their number may change meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable

from broker.supervisor.slots import Slots


class Crowd:
    """Many that want a slot; each keeps it until it is let go."""

    def __init__(self, slots: Slots, number: int) -> None:
        self.inside: list[int] = []
        self._slots = slots
        self._done = [asyncio.Event() for _ in range(number)]
        self.tasks = [asyncio.create_task(self._take(index)) for index in range(number)]

    async def _take(self, index: int) -> None:
        async with self._slots:
            self.inside.append(index)
            await self._done[index].wait()
            self.inside.remove(index)

    async def settle(self) -> list[int]:
        for _ in range(10):
            await asyncio.sleep(0)
        return self.inside

    async def let_go(self, index: int) -> list[int]:
        self._done[index].set()
        return await self.settle()


def play(number: int, slots: int, scenario: Callable[[Crowd, Slots], Awaitable[None]]) -> None:
    async def whole() -> None:
        places = Slots(slots)
        crowd = Crowd(places, number)
        await crowd.settle()
        await scenario(crowd, places)
        for task in crowd.tasks:
            task.cancel()

    asyncio.run(whole())


def test_no_more_than_the_number_are_inside_and_the_next_one_is_the_one_that_waited_longest() -> None:
    async def scenario(crowd: Crowd, _: Slots) -> None:
        assert crowd.inside == [0, 1]
        assert await crowd.let_go(0) == [1, 2]

    play(4, 2, scenario)


def test_a_greater_number_lets_those_in_that_wait() -> None:
    async def scenario(crowd: Crowd, slots: Slots) -> None:
        slots.resize(3)
        assert await crowd.settle() == [0, 1, 2]

    play(4, 1, scenario)


def test_a_smaller_number_sends_nobody_out_and_lets_nobody_in_until_it_is_reached() -> None:
    async def scenario(crowd: Crowd, slots: Slots) -> None:
        slots.resize(1)
        assert await crowd.let_go(0) == [1]
        assert await crowd.let_go(1) == [2]

    play(4, 2, scenario)


def test_one_that_gives_up_waiting_is_passed_over() -> None:
    async def scenario(crowd: Crowd, _: Slots) -> None:
        crowd.tasks[1].cancel()
        assert await crowd.let_go(0) == [2]

    play(3, 1, scenario)


def test_one_that_gives_up_in_the_moment_it_is_let_in_passes_its_slot_on() -> None:
    async def scenario(crowd: Crowd, slots: Slots) -> None:
        slots.resize(2)
        crowd.tasks[1].cancel()
        assert await crowd.settle() == [0, 2]

    play(3, 1, scenario)
