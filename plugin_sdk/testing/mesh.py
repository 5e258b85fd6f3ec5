"""What a test works with: clients and plugins around a broker in memory, and a record of what they said."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, TypeVar

from plugin_sdk.client import Bus
from plugin_sdk.entry import make_bus
from plugin_sdk.events import Event
from plugin_sdk.life import assemble
from plugin_sdk.peer import Peer
from plugin_sdk.plugin import Plugin
from plugin_sdk.registration import Profile
from plugin_sdk.testing.broker import MemoryBroker, MemoryLink, Origin
from plugin_sdk.testing.clock import LoopClock
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.subjects import check_pattern, matches

KEY = "key of the test mesh"
PATIENCE_SECS = 5.0  # so long a test waits for something that does not come
SHORTEST_STEP, LONGEST_STEP = 0.001, 1.0  # seconds by which the clock moves before everybody has a turn
_IDLE_TURNS = 20  # turns of the loop without a frame on its way; a handler needs a few for each of its steps

T = TypeVar("T")


class Recorder:
    """Every event that was published, in order."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._news = asyncio.Event()

    def __call__(self, pattern: str = ">") -> list[Event]:
        """Those that a pattern covers."""
        check_pattern(pattern)
        return [event for event in self._events if matches(pattern, event.subject)]

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def data(self, pattern: str = ">") -> list[Any]:
        """What those events carry."""
        return [event.data for event in self(pattern)]

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._events.clear()

    async def wait(self, pattern: str = ">", count: int = 1, timeout: float = PATIENCE_SECS) -> Event:
        """Wait until the pattern covers `count` events; returns the last of them.

        Raises:
            AssertionError: it did not within `timeout` seconds; says what was published instead.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while len(self(pattern)) < count:
                    self._news.clear()
                    await self._news.wait()
        found = self(pattern)
        if len(found) < count:
            others = ", ".join(event.subject for event in self._events) or "nothing"
            raise AssertionError(f"{len(found)} of {count} events on {pattern!r} were published; in all: {others}")
        return found[count - 1]

    def record(self, event: Event) -> None:
        """The mesh: one more."""
        self._events.append(event)
        self._news.set()


class Mesh:
    """Clients and plugins around a broker in memory. Opens itself on first use; close it, or use `async with`.

    The broker's clock, and with it every deadline that the broker enforces, moves by advance() only. The clock of the
    event loop runs on as usual, and is moved along by advance(): sleeps, time limits and waits of batches end as well.
    """

    def __init__(self) -> None:
        self.published = Recorder()
        self.broker = MemoryBroker({KEY: "operator"})
        self._clock: LoopClock | None = None
        self._bus: Bus | None = None
        self._links: dict[Bus, MemoryLink] = {}
        self._plugins: dict[Plugin, Bus] = {}
        self._folder: TemporaryDirectory[str] | None = None

    async def client(self, name: str = "test", *, key: str = KEY) -> Bus:
        """A connected client; raises RegistrationError when the key does not admit it."""
        await self.open()
        return await self._connect(Profile("client", name), key)

    async def start(self, plugin: Plugin, config: dict[str, Any] | None = None, *, enabled: bool = True) -> Bus:
        """Register, initialize and start a plugin by the broker's own commands; returns the plugin's session.

        Args:
            plugin: any plugin that does not run.
            config: its configuration.
            enabled: what the configuration says.

        Raises:
            CallError: with the reason why it did not start; the plugin is gone again.
        """
        await self.open()
        link = MemoryLink(self.broker, Origin("memory"))
        bus, _ = assemble(plugin, link, KEY, "the mesh in memory", self._data_dir(plugin))
        await self._join(bus, link)
        self._plugins[plugin] = bus
        try:
            await self.command(plugin, "initialize", {"config": config or {}, "enabled": enabled})
            await self.command(plugin, "start")
        except BaseException:
            await self._drop(plugin)
            raise
        return bus

    async def stop(self, plugin: Plugin) -> None:
        """Stop a plugin and let it clean up; raises CallError when that fails. Its process would end now."""
        try:
            await self.command(plugin, "cleanup")
        finally:
            await self._drop(plugin)

    async def command(self, plugin: Plugin, name: str, body: Any = None, *, timeout: float = 60.0) -> Any:
        """Send a life-cycle command, such as `health`, as the broker does; returns the answer."""
        assert self._bus is not None, "open() was called before"
        return await self._bus.call(f"$plugin.{name}", body, timeout=timeout, to=self._plugins[plugin].session)

    async def advance(self, seconds: float) -> None:
        """Move the clock and do what is due, in the order in which it is due; ends when nothing is on its way."""
        await self.open()
        clock = self._clock
        assert clock is not None, "open() makes one"
        await self._quiet()
        end = self.broker.now + seconds
        with clock.standing():
            while self.broker.now < end:
                moment = self._next_moment(clock, end)
                clock.move(moment - self.broker.now)
                self.broker.tick(moment)
                await self._quiet()

    async def settle(self) -> None:
        """Return when nothing is on its way: what was said has arrived, and handlers have run as far as they can.

        Raises:
            AssertionError: a plain handler does not come back from its thread.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_SECS
        await self._quiet()
        while any(bus.threads.awaited for bus in self._links):
            if loop.time() > end:
                stuck = [name for bus in self._links for name in bus.threads.stuck()]
                raise AssertionError(f"still running in threads: {', '.join(stuck)}")
            await asyncio.sleep(0.001)
            await self._quiet()

    async def lose(self, who: Plugin | Bus) -> None:
        """Break the connection of a plugin or client, and return when its session stands again."""
        bus = self._plugins[who] if isinstance(who, Plugin) else who
        self.broker.cut(self._links[bus])
        await bus.ready()

    async def restart(self) -> None:
        """End the broker as if killed and start a new one; return when all sessions stand again."""
        self.broker.stop()
        self.broker.start()
        for bus in self._links:
            await bus.ready()

    def snapshot(self) -> Any:
        """What the router knows: sessions with their subscriptions and services, requests, counters."""
        if self.broker.router is None:
            raise AssertionError("the broker is stopped")
        return self.broker.router.snapshot(self.broker.now)

    async def open(self) -> None:
        """Bind to the running event loop."""
        if self._bus is not None:
            return
        self._clock = LoopClock(asyncio.get_running_loop())
        self._bus = await self._connect(Profile("client", "broker"), "", Origin("local"))
        await self._bus.subscribe(">", self._record)

    async def close(self) -> None:
        """Stop the plugins that still run, the last one first, then end all sessions; raises what a cleanup raised."""
        errors: list[BusError] = []
        for plugin in reversed(list(self._plugins)):
            try:
                await self.stop(plugin)
            except BusError as error:
                errors.append(error)
        for bus in reversed(list(self._links)):
            await bus.close()
        self.abandon()
        if errors:
            raise errors[0]

    def abandon(self) -> None:
        """Give back what a mesh holds outside of its event loop."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in an event loop of its own and close the mesh: for tests that are plain functions."""

        async def closing() -> T:
            try:
                return await work
            finally:
                await self.close()

        return asyncio.run(closing())

    async def __aenter__(self) -> Mesh:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except BusError:
            # What went wrong inside of the block is the reason, not what went wrong because of it.
            if error is None:
                raise

    def _next_moment(self, clock: LoopClock, end: float) -> float:
        """When something is due next, at the router or on the loop; not after `end`."""
        now = self.broker.now
        router, timer = self.broker.router, clock.until_timer()
        moments = [now + LONGEST_STEP]
        if timer is not None:
            moments.append(now + timer)
        if router is not None and (due := router.next_deadline()) is not None:
            moments.append(due)
        return min(max(min(moments), now + SHORTEST_STEP), end)

    async def _quiet(self) -> None:
        idle = 0
        while idle < _IDLE_TURNS:
            await asyncio.sleep(0)
            idle = idle + 1 if self.broker.quiet else 0

    async def _connect(self, profile: Profile, key: str, origin: Origin | None = None) -> Bus:
        link = MemoryLink(self.broker, origin or Origin("memory"))
        bus = make_bus(Peer(link, profile, key, "the mesh in memory"))
        await self._join(bus, link)
        return bus

    async def _join(self, bus: Bus, link: MemoryLink) -> None:
        await bus.open()
        self._links[bus] = link

    async def _drop(self, plugin: Plugin) -> None:
        bus = self._plugins.pop(plugin)
        await bus.close()
        del self._links[bus]
        await self._quiet()

    async def _record(self, event: Event) -> None:
        self.published.record(event)

    def _data_dir(self, plugin: Plugin) -> Path:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="plugmesh-test-")
        return Path(self._folder.name) / plugin.name


def mesh() -> Mesh:
    """A mesh in memory, for `async with`; raises RouterMissing when the broker's package is not installed."""
    return Mesh()
