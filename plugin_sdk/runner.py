"""plugin.run(): a plugin as a process, from its environment to its exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Any

from plugin_sdk.client import Bus
from plugin_sdk.discovery import find_broker
from plugin_sdk.link import DealerLink
from plugin_sdk.peer import Peer
from plugin_sdk.plugin import Plugin
from plugin_sdk.registration import Profile
from plugin_sdk.wire.errors import BusError, RegistrationError

# sysexits.h: what a supervisor other than ours understands, too.
EX_OK, EX_UNAVAILABLE, EX_SOFTWARE, EX_NOPERM = 0, 69, 70, 77

STOP_SECS = 5.0  # a plugin that was told to stop by a signal may take so long to finish what it has in hand


class Life:
    """The commands of the broker, and where the plugin stands."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._state = "new"
        self.finished = asyncio.Event()

    async def install(self, bus: Bus) -> None:
        """Answer the life-cycle commands from now on."""
        commands = {
            "initialize": self.initialize,
            "start": self.start,
            "stop": self.stop,
            "cleanup": self.cleanup,
            "health": self._plugin.report,
            "stats": self.stats,
        }
        for name, command in commands.items():
            await bus.serve_unannounced(f"$plugin.{name}", command)

    def describe(self, profile: Profile) -> None:
        """Keep what is said at the next registration true."""
        profile.info["state"] = self._state
        profile.info["description"] = self._plugin.description

    async def initialize(self, config: dict[str, Any] | None = None, enabled: bool = True) -> str:
        """Take the configuration; a plugin that runs already says so and goes on."""
        if self._state == "running":
            return self._state
        if not enabled:
            raise BusError("disabled", f"plugin {self._plugin.name!r} is disabled by its configuration")
        await self._plugin.begin(config or {})
        self._state = "initialized"
        return self._state

    async def start(self) -> str:
        """Begin to work."""
        if self._state != "running":
            await self._plugin.go()
            self._state = "running"
        return self._state

    async def stop(self) -> str:
        """Finish what is in hand and take nothing new."""
        if self._state == "running":
            self._state = "stopped"
            await self._plugin.halt()
        return self._state

    async def cleanup(self) -> str:
        """Stop if that was not done, release everything; the process ends afterwards, even when this fails."""
        try:
            await self.stop()
            if self._state != "cleaned":
                self._state = "cleaned"
                await self._plugin.end()
        finally:
            self.finished.set()
        return self._state

    async def stats(self) -> dict[str, Any]:
        """The plugin's figures."""
        return self._plugin.stats()


def run(plugin: Plugin) -> None:
    """Run a plugin until it is told to stop; ends the process with an exit code.

    Exit codes: 0 stopped in order, 69 the broker cannot be reached, 70 cleanup failed, 77 the broker refused us.
    """
    logging.basicConfig(
        level=os.environ.get("BROKER_PLUGIN_LOG_LEVEL", "INFO").upper(),
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        code = asyncio.run(_main(plugin))
    except RegistrationError as error:
        print(f"ERROR {error.text}", file=sys.stderr)  # noqa: T201 - the last word of a process without a logger
        code = EX_UNAVAILABLE if error.retry else EX_NOPERM
    except BusError as error:
        print(f"ERROR {error}", file=sys.stderr)  # noqa: T201
        code = EX_UNAVAILABLE
    sys.exit(code)


async def _main(plugin: Plugin) -> int:
    address = find_broker(plugin=plugin.name)
    services = [f"{plugin.name}.{each.name}" for each, _ in plugin.declared if each.what == "service"]
    profile = Profile("plugin", plugin.name, plugin.version, plugin.instance, services)
    peer = Peer(DealerLink(address), profile, address.token, address.endpoint)
    peer.stats = plugin.stats
    bus, life = Bus(peer), Life(plugin)
    plugin.attach(bus)
    await life.install(bus)
    peer.before_register = lambda: life.describe(profile)
    asked = _watch_signals()
    await bus.open()
    return await _until_told(bus, life, asked)


async def _until_told(bus: Bus, life: Life, asked: asyncio.Event) -> int:
    """Wait for the cleanup command, a signal or the end of the session, then leave in order."""
    waits = [asyncio.ensure_future(each) for each in (life.finished.wait(), asked.wait(), asyncio.shield(bus.ended))]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    code = EX_OK
    if not life.finished.is_set():
        try:
            async with asyncio.timeout(STOP_SECS):
                await life.cleanup()
        except Exception:
            logging.getLogger("plugin_sdk").exception("cleanup failed")
            code = EX_SOFTWARE
    error = bus.ended.result() if bus.ended.done() else None
    await bus.close()
    if error is not None:
        raise error
    return code


def _watch_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets; a second one ends the process at once."""
    asked = asyncio.Event()

    def on_signal(number: int) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return asked
