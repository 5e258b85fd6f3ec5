"""A mesh in one process for the tests of the shipped services: a real core and edge, plugins beside each other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from broker.core.router import Router
from broker.edge.server import Edge
from plugin_sdk import Bus, CallError, Event, Plugin, Subscription, connect
from plugin_sdk.discovery import Address
from plugin_sdk.link import DealerLink
from plugin_sdk.peer import Peer
from plugin_sdk.registration import Profile

KEY = "test"
PATIENCE = 5.0
SERVICES = Path(__file__).parents[3] / "services"
P = TypeVar("P", bound=Plugin)


class Mesh:
    """Clients and plugins of one broker, closed together with it."""

    def __init__(self, endpoint: str, stack: AsyncExitStack) -> None:
        self._endpoint = endpoint
        self._stack = stack

    async def client(self, name: str = "test") -> Bus:
        """A connected client."""
        return await self._stack.enter_async_context(connect(self._endpoint, KEY, name=name))

    async def start(self, plugin: P, config: dict[str, Any] | None = None) -> P:
        """Initialize and start a plugin; it is stopped and cleaned up with the mesh."""
        peer = Peer(DealerLink(Address(self._endpoint, KEY)), Profile("plugin", plugin.name), KEY, self._endpoint)
        bus = Bus(peer)
        await bus.open()
        self._stack.push_async_callback(bus.close)
        plugin.attach(bus)
        await plugin.begin(config or {})
        self._stack.push_async_callback(plugin.end)
        await plugin.go()
        self._stack.push_async_callback(plugin.halt)
        return plugin


@asynccontextmanager
async def mesh(folder: Path) -> AsyncIterator[Mesh]:
    """A broker with its socket in `folder`."""
    router = Router()
    router.admission.set_keys({KEY: "operator"})
    edge = Edge(router, lambda notices: None)
    endpoint = f"ipc://{folder}/b.sock"
    edge.bind_ipc(endpoint)
    edge.start()
    try:
        async with AsyncExitStack() as stack:
            yield Mesh(endpoint, stack)
    finally:
        await edge.close()


async def next_of(events: Subscription) -> Event:
    """The next event; fails after a while."""
    async with asyncio.timeout(PATIENCE):
        return await anext(aiter(events))


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Returns when the condition holds; fails after a while."""
    async with asyncio.timeout(PATIENCE):
        # What is waited for is often a file, which sets no asyncio.Event.
        while not (await holds if isinstance(holds := condition(), Awaitable) else holds):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def refusal(call: Awaitable[object]) -> tuple[str, str]:
    """Code and text of the error that the call ends with."""
    with pytest.raises(CallError) as caught:
        await call
    return caught.value.code, caught.value.text


def shipped_config(name: str) -> dict[str, Any]:
    """The `config` of the plugin's own manifest."""
    manifest = yaml.safe_load((SERVICES / name / "plugin.yaml").read_text())
    config: dict[str, Any] = manifest.get("config", {})
    return config


def put(path: Path, text: str) -> None:
    """Writes a file into a directory that may have to be made."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
