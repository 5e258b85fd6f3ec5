"""Every test here runs twice: over the mesh in memory that ships with the SDK, and over a broker process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import pytest
import yaml

from plugin_sdk import Bus, Plugin, connect
from plugin_sdk.discovery import find_broker
from plugin_sdk.life import assemble
from plugin_sdk.link import DealerLink
from plugin_sdk.testing import Mesh
from tests.integration.sdk.processes import BrokerProcess
from tests.unit.sdk.coroutines import pytest_pyfunc_call, until

__all__ = ["pytest_pyfunc_call", "venue"]


class Venue(Protocol):
    """Where a scenario takes place."""

    async def client(self, name: str = "test") -> Bus:
        """A connected client."""

    async def start(self, plugin: Plugin, config: dict[str, Any] | None = None) -> Bus:
        """A running plugin."""

    async def restart(self) -> None:
        """The broker crashes and is started again; everybody is back."""


Open = Callable[[], AbstractAsyncContextManager[Venue]]


class Processes:
    """A broker process, with clients and plugins of the test's own process."""

    def __init__(self, broker: BrokerProcess) -> None:
        self._broker = broker
        self._stack = AsyncExitStack()
        self._sessions: list[Bus] = []

    async def client(self, name: str = "test") -> Bus:
        bus = await self._stack.enter_async_context(connect(home=self._broker.home, name=name))
        self._sessions.append(bus)
        return bus

    async def start(self, plugin: Plugin, config: dict[str, Any] | None = None) -> Bus:
        # One that is started by hand has its configuration from where the broker looks for it.
        (self._broker.home / "config" / f"{plugin.name}.yaml").write_text(yaml.safe_dump({"config": config or {}}))
        address = find_broker(home=self._broker.home, environ={})
        bus, life = assemble(plugin, DealerLink(address), address.token, address.endpoint)
        await bus.open()
        self._sessions.append(bus)
        self._stack.push_async_callback(bus.close)
        self._stack.push_async_callback(life.cleanup)
        await until(lambda: life.state == "running")
        return bus

    async def restart(self) -> None:
        self._broker.kill()
        await asyncio.to_thread(self._broker.start)
        for bus in self._sessions:
            await bus.ready(15)

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker for all tests, so that they are quick; each leaves it as it found it."""
    broker = BrokerProcess(tmp_path_factory.mktemp("contract") / "home")
    broker.start()
    yield broker
    broker.close()


@pytest.fixture(params=["in memory", "process"])
def venue(request: pytest.FixtureRequest) -> Open:
    """A function that gives the venue, as a context inside of the test's event loop."""
    if request.param == "in memory":
        return Mesh

    @asynccontextmanager
    async def open_process() -> AsyncIterator[Processes]:
        processes = Processes(request.getfixturevalue("process"))
        try:
            yield processes
        finally:
            await processes.close()

    return open_process
