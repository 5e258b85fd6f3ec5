"""Handlers at work: order, limits, and what one of them cannot do to the others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from plugin_sdk.workers import Workers


class Shop:
    """Workers with a record of what they began, finished and failed at."""

    def __init__(self, limit: int = 1, handler: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.errors: list[tuple[Any, BaseException]] = []
        self.handler = handler or self.wait
        self.gates: dict[Any, asyncio.Event] = {}
        self.workers: Workers[Any] = Workers(
            self.run, lambda item, error: self.errors.append((item, error)), limit, "w"
        )

    async def run(self, item: Any) -> int:
        self.begun.append(item)
        await self.handler(item)
        self.ended.append(item)
        return 1

    async def wait(self, item: Any) -> None:
        await self.gates.setdefault(item, asyncio.Event()).wait()

    def put(self, *items: Any) -> None:
        self.workers.queue.extend(items)
        self.workers.wake()

    def open(self, item: Any) -> None:
        self.gates.setdefault(item, asyncio.Event()).set()


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_items_are_begun_in_order_and_never_more_than_the_limit_at_once() -> None:
    shop = Shop(limit=3)
    shop.put(*range(5))
    await turns()
    assert shop.begun == [0, 1, 2]
    shop.open(1)
    await turns()
    assert (shop.begun, shop.ended) == ([0, 1, 2, 3], [1])


async def test_a_limit_of_one_keeps_the_order_in_which_items_end() -> None:
    async def handler(item: int) -> None:
        await turns(item % 3)

    shop = Shop(handler=handler)
    shop.put(*range(9))
    await shop.workers.finish()
    assert shop.ended == list(range(9))


async def test_items_that_come_while_a_handler_waits_are_begun_by_another_worker() -> None:
    shop = Shop(limit=2)
    shop.put("slow")
    await turns()
    shop.put("quick")
    shop.open("quick")
    await turns()
    assert shop.ended == ["quick"]


async def test_an_item_that_fails_is_reported_and_the_next_one_is_handled() -> None:
    async def handler(item: str) -> None:
        if item == "bad":
            raise ValueError(item)

    shop = Shop(handler=handler)
    shop.put("a", "bad", "b")
    await shop.workers.finish()
    assert shop.ended == ["a", "b"]
    assert [(item, type(error)) for item, error in shop.errors] == [("bad", ValueError)]
    assert (shop.workers.stats.handled, shop.workers.stats.failed) == (2, 1)


async def test_a_handler_that_awaits_something_cancelled_elsewhere_fails_alone() -> None:
    async def handler(item: str) -> None:
        if item == "bad":
            task = asyncio.ensure_future(asyncio.sleep(60))
            task.cancel()
            await task

    shop = Shop(handler=handler)
    shop.put("bad", "good")
    await shop.workers.finish()
    assert shop.ended == ["good"]
    assert isinstance(shop.errors[0][1], asyncio.CancelledError)


async def test_finish_waits_for_what_is_queued_and_for_what_runs() -> None:
    shop = Shop()
    shop.put(1, 2)
    finishing = asyncio.create_task(shop.workers.finish())
    await turns()
    assert not finishing.done()
    shop.open(1)
    shop.open(2)
    await finishing
    assert shop.ended == [1, 2]


async def test_a_handler_that_finishes_its_own_workers_is_not_waited_for_and_those_behind_it_are_handled() -> None:
    async def handler(item: int) -> None:
        if item == 0:
            await shop.workers.finish()

    shop = Shop(handler=handler)
    shop.put(0, 1, 2)
    await turns()
    assert shop.ended == [0, 1, 2]


async def test_close_cancels_what_runs_and_forgets_what_is_queued() -> None:
    shop = Shop()
    shop.put(1, 2)
    await turns()
    shop.workers.close()
    await turns()
    assert (shop.begun, shop.ended, shop.errors) == ([1], [], [])
    assert not shop.workers.running


async def test_a_handler_may_close_its_own_workers_and_still_goes_on_to_its_end() -> None:
    async def handler(item: int) -> None:
        shop.workers.close()
        await turns()

    shop = Shop(handler=handler)
    shop.put(1)
    await turns(30)
    assert shop.ended == [1]


async def test_nobody_who_waits_for_the_end_is_forgotten_when_it_is_closed_instead() -> None:
    shop = Shop()
    shop.put(1)
    finishing = asyncio.create_task(shop.workers.finish())
    await turns()
    shop.workers.close()
    await asyncio.wait_for(finishing, 1)


async def test_handlers_that_never_wait_let_the_loop_have_its_turn() -> None:
    beats = 0

    async def handler(item: int) -> None:
        end = asyncio.get_running_loop().time() + 0.002
        while asyncio.get_running_loop().time() < end:
            pass

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    shop = Shop(handler=handler)
    beating = asyncio.create_task(beat())
    shop.put(*range(30))
    await shop.workers.finish()
    beating.cancel()
    assert beats > 5


async def test_busy_secs_is_about_the_item_that_is_longest_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("plugin_sdk.workers.perf_counter", lambda: now)
    shop = Shop(limit=3)
    shop.put("a")
    await turns()
    now = 110.0
    shop.put("b")
    await turns()
    now = 112.0
    assert shop.workers.busy_secs() == 12.0
    shop.open("a")
    await turns()
    assert shop.workers.busy_secs() == pytest.approx(2.0)
    shop.open("b")
    await turns()
    assert shop.workers.busy_secs() == 0.0
    assert shop.workers.stats.longest == 12.0


async def test_workers_that_have_nothing_to_do_do_not_pile_up() -> None:
    shop = Shop(limit=50)
    shop.put(*range(50))
    await turns(200)
    assert len(shop.begun) == 50
    for item in range(50):
        shop.open(item)
    await turns(200)
    assert len([task for task in asyncio.all_tasks() if task.get_name() == "w"]) == 1
