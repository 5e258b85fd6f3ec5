"""A process on the bus: the real session logic of the SDK on a simulated link, from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Protocol

from plugin_sdk.client import Bus
from plugin_sdk.peer import Peer
from plugin_sdk.registration import Profile
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError, RegistrationError
from tests.simulation.broker import KEY
from tests.simulation.content import Key, key_of
from tests.simulation.link import SimulatedLink
from tests.simulation.loop import OWNER, Owner, VirtualLoop
from tests.simulation.network import Connection, Network
from tests.simulation.publisher import Publisher
from tests.simulation.reader import Reader

PATIENCE_SECS = 1.0  # before a process whose registration failed tries once more, as its supervisor would


class Surroundings(Protocol):
    """What a process needs of the world that it is in."""

    loop: VirtualLoop
    network: Network

    def fault(self, text: str) -> None:
        """An invariant does not hold."""

    def is_owned(self, session: int, subscription: int, key: Key) -> bool:
        """Whether the broker sent it before it confirmed the end of the subscription."""


class Process(Owner):
    """One life of one process. It follows its session as the parts of the SDK do.

    Args:
        world: where it lives.
        role: `plugin` or `client`.
        name: as it registers.
        instance: tells plugins of the same name apart.
        number: which of the lives of all processes this is.
    """

    def __init__(self, world: Surroundings, role: str, name: str, instance: str, number: int) -> None:
        super().__init__()
        self.world = world
        self.role, self.name, self.instance = role, name, instance
        self.who = f"{name}{instance}/{number}"
        self.context = copy_context()
        self.context.run(OWNER.set, self)
        self.bus: Bus | None = None
        self.peer: Peer | None = None
        self.link: SimulatedLink | None = None
        self.session_lost = 0.0  # when that happened last
        self.alive = True
        self.leaving = False
        self.readers: dict[object, Reader] = {}
        self.offers: dict[str, Callable[..., Any]] = {}
        self.publisher = Publisher(self)
        self._offered: set[str] = set()
        self._asking: set[str] = set()
        self._work: list[asyncio.Task[None]] = []
        self._registered = asyncio.Event()
        self.spawn("living", self._live)

    @property
    def is_open(self) -> bool:
        """Whether it can be given something to do."""
        return self.alive and self.bus is not None and not self.leaving

    def busy(self) -> list[str]:
        """What it has been told to do and has not finished."""
        self._work = [task for task in self._work if not task.done()]
        return [task.get_name() for task in self._work]

    def spawn(self, what: str, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> asyncio.Task[None]:
        """Let it do something; whatever that raises, other than the errors of the bus, is a fault."""
        task = self.world.loop.create_task(self._guard(what, work, args), name=what, context=self.context)
        if what != "living":
            self._work.append(task)
        return task

    async def restore(self, timeout: float) -> None:
        """A new session stands."""

    def reset(self) -> None:
        """The session is gone: whatever waits for an answer must be told now."""
        self.session_lost = self.world.loop.time()

    def end(self, error: BusError | None) -> None:
        """There will be none any more."""

    def kill(self, unnoticed: float) -> None:
        """End at once, in the middle of everything; the broker notices within `unnoticed` seconds."""
        self.alive = False
        if self.link is not None:
            self.link.die(unnoticed)
        self.cancel_all()

    def leave(self, last_words: int = 0) -> asyncio.Task[None]:
        """End in good order, publishing so many events in the moment before."""
        self.leaving = not last_words
        return self.spawn("leaving", self._leave, last_words)

    def check_noticed(self, session: int, connection: Connection | None) -> None:
        """A session over a connection that has long been gone is not believed in any more."""
        known = self.peer is not None and session and self.peer.number == session
        if self.alive and known and self.link is not None and self.link.connection is connection:
            self.world.fault(f"{self.who} has not noticed that the broker is silent")

    async def serve_all(self, concurrency: int) -> None:
        """Offer what it has to offer, once it is registered, so many requests at a time."""
        await self._registered.wait()
        for name in self.offers:
            await self.serve(name, concurrency)

    async def serve(self, name: str, concurrency: int) -> None:
        """Offer one service, unless it is offered already."""
        if self.bus is None or not self.is_open or name in self._offered:
            return
        self._offered.add(name)
        self._asking.add(name)
        try:
            await self.bus.serve(name, self.offers[name], concurrency=concurrency)
        except BusError as error:
            self._offered.discard(name)
            if error.code.startswith("bad_") or error.code == "denied":
                self.world.fault(f"{self.who} may not serve {name}: {error}")
        finally:
            self._asking.discard(name)

    async def withdraw(self, name: str) -> None:
        """Take a service back."""
        if self.bus is not None and self.is_open:
            with suppress(BusError):
                await self.bus.withdraw(name)
            if name not in self._asking:
                self._offered.discard(name)

    async def _guard(self, what: str, work: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]) -> None:
        try:
            await work(*args)
        except Exception as error:  # noqa: BLE001 - whatever escapes is what the simulation is looking for
            if self.alive:
                self.world.fault(f"{what} in {self.who} raised {error!r}")

    async def _live(self) -> None:
        while True:
            if await self._register():
                break
            await asyncio.sleep(PATIENCE_SECS)
        peer, bus = self.peer, self.bus
        assert peer is not None, "it has just registered"
        assert bus is not None, "it has just registered"
        error = await asyncio.shield(peer.ended)
        if error is not None and error.code != "slow_consumer":
            self.world.fault(f"the session of {self.who} ended for good: {error}")
        self.alive = False

    async def _register(self) -> bool:
        self.link = SimulatedLink(self.world.network, self.context)
        profile = Profile(self.role, self.name, "1", self.instance, info={"pid": 1}, nonce=self.who)
        peer = self.peer = Peer(self.link, profile, KEY, "simulated")
        bus = Bus(peer)
        peer.add_part(self, {})
        self._on_event = peer.handlers[p.Event]
        peer.handlers[p.Event] = self._book
        try:
            await bus.open()
        except RegistrationError as error:
            if error.code not in ("unavailable", "timeout", "lost", "duplicate_name"):
                self.world.fault(f"{self.who} was not admitted: {error}")
            return False
        self.bus = bus
        self._registered.set()
        return True

    async def _leave(self, last_words: int) -> None:
        if self.is_open:
            await self.publisher.say("a.b", 10, last_words)
        self.leaving = True
        if self.bus is not None:
            await self.bus.close()
        self.alive = False
        self.cancel_all()

    def _book(self, packet: p.Event) -> None:
        """Note what has come for whom, then let the SDK have it."""
        key: Key = key_of(packet.payload)
        inlets = probe_inlets(self)
        for number in packet.subscriptions:
            reader = self.readers.get(inlets.get(number))
            if reader is not None:
                reader.arrived.append(key)
            elif number not in inlets and self.is_open:
                self._check_unclaimed(number, key)
        self._on_event(packet)

    def _check_unclaimed(self, number: int, key: Key) -> None:
        """What was sent before the end of a subscription was confirmed has gone to no other member of its group."""
        ends = [each for each in self.readers.values() if each.number == number and each.waits_for_its_end()]
        if ends and self.peer is not None and self.world.is_owned(self.peer.number, number, key):
            self.world.fault(f"{self.who} did not take {key} for subscription {number}, which was not over yet")


def probe_inlets(process: Process) -> dict[int, Any]:
    """The subscriptions that the SDK knows, by number."""
    assert process.bus is not None, "only a process that has registered gets events"
    return process.bus._inlets._inlets
