"""When the watchdog is fed, and when it is not."""

import asyncio
import os

import pytest

from broker.systemd.watchdog import Terms, Watchdog, agree

MINE = str(os.getpid())


@pytest.mark.parametrize(
    ("environ", "enabled", "terms"),
    [
        ({}, False, None),
        ({}, True, Terms(30, 10, announce=True)),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": MINE}, True, Terms(30, 10, announce=False)),
        ({"WATCHDOG_USEC": "60000000"}, True, Terms(30, 10, announce=True)),
        ({"WATCHDOG_USEC": "4000000"}, False, Terms(4, 2, announce=False)),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, False, None),
        ({"WATCHDOG_USEC": "soon"}, False, None),
        ({"WATCHDOG_USEC": "0"}, False, None),
    ],
)
def test_settings_and_unit_are_brought_together(environ: dict[str, str], enabled: bool, terms: Terms | None) -> None:
    assert agree(environ, enabled, 30.0, 10.0) == terms


def test_the_interval_is_at_most_half_of_the_timeout() -> None:
    terms = agree({}, True, 8.0, 10.0)
    assert terms is not None
    assert terms.interval == 4.0


async def test_it_is_fed_while_the_core_proves_its_progress() -> None:
    fed: asyncio.Queue[None] = asyncio.Queue()

    async def prove() -> None:
        await asyncio.sleep(0)

    dog = asyncio.create_task(Watchdog(Terms(5, 0.01, False), prove, lambda: fed.put_nowait(None)).run())
    for _ in range(3):
        await asyncio.wait_for(fed.get(), 5)
    dog.cancel()


async def test_a_core_that_gives_no_proof_starves_it_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    works, asked, fed = asyncio.Event(), asyncio.Semaphore(0), asyncio.Event()

    async def prove() -> None:
        asked.release()
        await works.wait()

    dog = asyncio.create_task(Watchdog(Terms(0.05, 0.01, False), prove, fed.set).run())
    for _ in range(3):
        await asyncio.wait_for(asked.acquire(), 5)
    assert not fed.is_set()
    assert "makes no progress, so the watchdog is not fed" in caplog.text
    works.set()
    await asyncio.wait_for(fed.wait(), 5)
    dog.cancel()
