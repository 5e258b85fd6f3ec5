"""The order of what systemd is told, whatever overlaps."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker.config import WatchdogSection
from broker.daemon import announcing
from broker.daemon.announcing import Announcer


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def at_once() -> None:
    """Nothing is to be waited for."""


class Ears:
    """A notify socket that is listened to on the loop."""

    def __init__(self) -> None:
        self.address = f"@plugmesh-announcing-{os.getpid()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0"))
        self._socket.setblocking(False)

    async def hear(self) -> str:
        """The first line of the next message that is more than a status."""
        while True:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 65536), 5)
            line = data.decode().split("\n")[0]
            if not line.startswith("STATUS="):
                return line

    def hears(self) -> bool:
        """Whether anything more than a status has been said."""
        try:
            while self._socket.recv(65536).startswith(b"STATUS="):
                pass
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def announcer() -> AsyncIterator[tuple[Announcer, Ears]]:
    ears = Ears()
    made = Announcer({"NOTIFY_SOCKET": ears.address}, WatchdogSection(), at_once, lambda: "all is well")
    try:
        yield made, ears
    finally:
        made.close()
        ears.close()


async def test_a_plugin_that_does_not_come_up_delays_readiness_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcing, "READY_SECS", 0.05)
    first_round = asyncio.create_task(forever())
    async with announcer() as (made, ears):
        made.begin(first_round)
        assert await ears.hear() == "READY=1"
    first_round.cancel()


async def test_reloads_that_overlap_end_together() -> None:
    async with announcer() as (made, ears):
        made.begin(asyncio.create_task(at_once()))
        assert await ears.hear() == "READY=1"
        with made.reload():
            with made.reload():
                assert [await ears.hear(), await ears.hear()] == ["RELOADING=1", "RELOADING=1"]
            assert not ears.hears()
        assert await ears.hear() == "READY=1"


async def test_a_reload_that_fails_ends_too() -> None:
    async with announcer() as (made, ears):
        made.begin(asyncio.create_task(at_once()))
        assert await ears.hear() == "READY=1"
        with pytest.raises(RuntimeError), made.reload():
            raise RuntimeError("a defect")
        assert [await ears.hear(), await ears.hear()] == ["RELOADING=1", "READY=1"]


async def test_a_reload_during_the_start_does_not_claim_readiness() -> None:
    first_round = asyncio.create_task(forever())
    async with announcer() as (made, ears):
        made.begin(first_round)
        with made.reload():
            pass
        assert not ears.hears()
    first_round.cancel()


async def test_who_stops_is_not_ready_any_more() -> None:
    async with announcer() as (made, ears):
        made.begin(asyncio.create_task(at_once()))
        assert await ears.hear() == "READY=1"
        with made.reload():
            made.stopping(None)
        assert [await ears.hear(), await ears.hear()] == ["RELOADING=1", "STOPPING=1"]
        assert not ears.hears()
