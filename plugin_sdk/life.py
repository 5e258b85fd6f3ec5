"""The life of a plugin in its process: the commands of the broker, in order, one at a time."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Protocol

from plugin_sdk.client import Bus
from plugin_sdk.entry import make_bus
from plugin_sdk.link import Link
from plugin_sdk.peer import Peer
from plugin_sdk.registration import Profile
from plugin_sdk.wire.errors import BusError

# Of the 5 s that a plugin has to end (PLG-6), so much at most goes into what it still has in hand: its cleanup hook
# must run whatever a stuck handler does.
DRAIN_SECS = 3.0

log = logging.getLogger("plugin_sdk")


class Managed(Protocol):
    """What can be led through a life: a Plugin."""

    name: str
    version: str
    instance: str
    description: str
    requires: list[str]
    threads: int

    def attach(self, bus: Bus, data_dir: Path | None = None) -> None:
        """Use this session from now on."""

    def service_names(self) -> list[str]:
        """Full names of the services it is going to register."""

    async def begin(self, config: dict[str, Any]) -> None:
        """Take a configuration; raises BusError when it is refused."""

    async def go(self) -> None:
        """Acquire resources, subscribe and serve."""

    async def halt(self) -> None:
        """Take nothing new and finish what is in hand."""

    async def end(self) -> None:
        """Release resources."""

    async def report(self) -> dict[str, Any]:
        """How it is."""

    def stats(self) -> dict[str, Any]:
        """Its figures."""

    def stuck(self) -> list[str]:
        """Names of the handlers that threads are still inside of."""


class Life:
    """The commands of the broker, and where the plugin stands.

    Each may come twice, as the broker may be restarted in between, and each ignores arguments that it does not know,
    as a later broker may send more of them.
    """

    def __init__(self, plugin: Managed) -> None:
        self._plugin = plugin
        self._turn = asyncio.Lock()
        self._state = "new"
        self.finished = asyncio.Event()
        self.failed = False

    @property
    def state(self) -> str:
        """`new`, `initialized`, `running`, `stopped` or `cleaned`."""
        return self._state

    def install(self, bus: Bus) -> None:
        """Answer the life-cycle commands from now on."""
        commands = {
            "initialize": self.initialize,
            "start": self.start,
            "stop": self.stop,
            "cleanup": self.cleanup,
            "health": self.health,
            "stats": self.stats,
        }
        for name, command in commands.items():
            bus.serve_unannounced(f"$plugin.{name}", command)

    def describe(self, profile: Profile) -> None:
        """Keep what is said at the next registration true."""
        profile.info["state"] = self._state

    async def initialize(self, config: dict[str, Any] | None = None, enabled: bool = True, **_: Any) -> str:
        """Take the configuration; a plugin that runs already says so and goes on."""
        async with self._turn:
            if self._state == "running":
                return self._state
            if not enabled:
                raise BusError("disabled", f"plugin {self._plugin.name!r} is disabled by its configuration")
            await self._plugin.begin(config or {})
            self._state = "initialized"
            return self._state

    async def start(self, **_: Any) -> str:
        """Begin to work."""
        async with self._turn:
            if self._state == "new":
                raise BusError("bad_request", f"plugin {self._plugin.name!r} must be initialized before it can start")
            if self._state != "running":
                await self._plugin.go()
                self._state = "running"
            return self._state

    async def stop(self, **_: Any) -> str:
        """Finish what is in hand and take nothing new."""
        async with self._turn:
            await self._stop()
            return self._state

    async def cleanup(self, **_: Any) -> str:
        """Stop if that was not done, release everything; the process ends afterwards, even when this fails."""
        async with self._turn:
            try:
                await self._clean()
            except BaseException:
                self.failed = True
                raise
            finally:
                self.finished.set()
            return self._state

    async def health(self, **_: Any) -> dict[str, Any]:
        """How the plugin says it is."""
        return await self._plugin.report()

    async def stats(self, **_: Any) -> dict[str, Any]:
        """The plugin's figures."""
        return self._plugin.stats()

    async def _stop(self) -> None:
        if self._state == "running":
            self._state = "stopped"
            await self._plugin.halt()

    async def _clean(self) -> None:
        if self._state in ("new", "cleaned"):
            self._state = "cleaned"
            return
        try:
            async with asyncio.timeout(DRAIN_SECS):
                await self._stop()
        except Exception as error:  # noqa: BLE001 - whatever keeps it from stopping, its resources must be released
            log.error("stopping %s failed: %s", self._plugin.name, str(error) or f"not done after {DRAIN_SECS:g} s")
            self.failed = True
        self._state = "cleaned"
        await self._plugin.end()


def assemble(plugin: Managed, link: Link, token: str, endpoint: str, data_dir: Path | None = None) -> tuple[Bus, Life]:
    """Give a plugin a session, not opened yet, that follows the broker's commands.

    Args:
        plugin: has no session so far.
        link: the transport.
        token: what admits it.
        endpoint: the link's address, for texts.
        data_dir: the plugin's own directory, if it is not the usual one.
    """
    info = {"description": plugin.description, "requires": plugin.requires}
    profile = Profile("plugin", plugin.name, plugin.version, plugin.instance, plugin.service_names(), info)
    peer = Peer(link, profile, token, endpoint)
    bus, life = make_bus(peer, plugin.threads), Life(plugin)
    peer.stats = plugin.stats
    peer.before_register = lambda: life.describe(profile)
    plugin.attach(bus, data_dir)
    life.install(bus)
    return bus, life
