"""A broker in memory: the real router behind links that are lists, and a clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import count
from typing import Any, Protocol

from plugin_sdk.link import Listener
from plugin_sdk.wire.outbox import Outbox

GROUP = "plugmesh.router"
HIGH_WATER = 1000  # frames that a broker which does not read lets wait, as ZeroMQ does by default


class Router(Protocol):
    """What is used of the router: the contract of the entry point `plugmesh.router`."""

    admission: Any
    dirty: list[Outbox]
    strays: list[tuple[bytes, bytes]]
    notices: list[Any]

    def receive(self, peer: bytes, frame: bytes, now: float, origin: Any = ...) -> None:
        """Take one frame from a peer."""

    def peer_lost(self, peer: bytes, now: float, text: str = ...) -> None:
        """A peer cannot be reached any more."""

    def drain(self) -> None:
        """Admit nobody and begin nothing any more."""

    def say_goodbye(self, code: str, text: str) -> None:
        """Tell every peer that all sessions end."""

    def tick(self, now: float) -> None:
        """Do what is due."""

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""

    def snapshot(self, now: float) -> Any:
        """A frozen view of everything."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a frame comes from, as the router wants it: `local` is the broker itself, which needs no key."""

    transport: str
    pid: int = 0
    group: int = 0
    uid: int = -1
    user: str = ""
    chosen: bool = False


class RouterMissing(RuntimeError):
    """The package that brings the router is not installed."""


def load_router() -> Callable[..., Router]:
    """The router of the installed broker; raises RouterMissing when there is none."""
    found = [each for each in entry_points(group=GROUP) if each.name == "core"]
    if not found:
        raise RouterMissing(
            f"no entry point of the group {GROUP!r} is installed, and the mesh in memory runs the real router:"
            " `pip install plugmesh`, in a clone `pip install --editable .`"
        )
    factory: Callable[..., Router] = found[0].load()
    return factory


class MemoryLink:
    """A Link to a MemoryBroker.

    Args:
        broker: the other end.
        origin: what the broker knows of this end.
    """

    def __init__(self, broker: MemoryBroker, origin: Origin) -> None:
        self.origin = origin
        self.address = b""
        self.blocked = False
        self._broker = broker
        self._listener: Listener | None = None
        self._arrived: list[bytes] = []

    def open(self, listener: Listener) -> None:
        """Connect, now or as soon as there is a broker."""
        self._listener = listener
        self._broker.attach(self)

    def send(self, frame: bytes) -> bool:
        """Hand over a frame; False when the broker is away or does not read."""
        return self._broker.take(self, frame)

    def close(self) -> None:
        """Disconnect."""
        self._listener = None
        self._arrived.clear()
        self._broker.detach(self)

    def up(self) -> None:
        """The broker: the connection stands."""
        if self._listener is not None:
            self._listener.on_up()

    def down(self, reason: str) -> None:
        """The broker: the connection is gone; what had arrived counts."""
        self._deliver()
        if self._listener is not None:
            self._listener.on_down(reason)

    def writable(self) -> None:
        """The broker: it reads again."""
        if self.blocked and self._listener is not None:
            self.blocked = False
            self._listener.on_writable()

    def arrive(self, frame: bytes) -> None:
        """The broker: here is a frame."""
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._arrived.append(frame)

    def _deliver(self) -> None:
        frames, self._arrived = self._arrived, []
        if frames and self._listener is not None:
            self._listener.on_frames(frames)


class MemoryBroker:
    """Carries frames between links and a router, as the broker's edge does, and can fail in the same ways.

    Args:
        keys: what admits, and as whom.
    """

    def __init__(self, keys: dict[str, str]) -> None:
        self._factory = load_router()
        self._keys = keys
        self._links: dict[bytes, MemoryLink] = {}
        self._origins: dict[bytes, Origin] = {}
        self._unplugged: dict[MemoryLink, None] = {}
        self._numbers = count(1)
        self._sessions = count(1)
        self._inbox: list[tuple[bytes, bytes | None]] = []
        self._planned = False
        self._reading = True
        self.now = 1000.0
        self.router: Router | None = None
        self.start()

    @property
    def quiet(self) -> bool:
        """Whether nothing is on its way."""
        return not (self._planned or (self._inbox and self._reading))

    def start(self, keys: dict[str, str] | None = None) -> None:
        """Run with a router that knows nobody yet; `keys` replaces what admits."""
        self._keys = keys or self._keys
        # Never a number twice, as with the random ones of a real broker.
        self.router = self._factory(numbers=self._sessions.__next__)
        self.router.admission.set_keys(self._keys)
        self._plug_all()

    def stop(self) -> None:
        """End without a word, as killed."""
        self.router = None
        self._inbox.clear()
        self._origins.clear()
        links, self._links = self._links, {}
        self._unplugged.update(dict.fromkeys(links.values()))
        for link in links.values():
            link.down("the broker ended")

    def shut_down(self) -> None:
        """End in order: everybody is told."""
        if self.router is not None:
            self.router.drain()
            self.router.say_goodbye("shutting_down", "the broker stops")
            self._flush(self.router)
        self.stop()

    def freeze(self) -> None:
        """Neither read nor answer, as a stopped process does; connections stand."""
        self._reading = False

    def thaw(self) -> None:
        """Go on, with all that has come in the meantime."""
        self._plug_all()
        self._plan()

    def cut(self, link: MemoryLink) -> None:
        """Break one connection; it is made anew at once."""
        self.detach(link)
        link.down("the connection was cut")
        self.attach(link)

    def attach(self, link: MemoryLink) -> None:
        """A link wants to connect."""
        if self.router is None or not self._reading:
            self._unplugged[link] = None
        else:
            self._plug(link)

    def detach(self, link: MemoryLink) -> None:
        """A link is gone; the router learns of it after what the link has said before."""
        self._unplugged.pop(link, None)
        if self._links.pop(link.address, None) is not None:
            self._put(link.address, None)

    def take(self, link: MemoryLink, frame: bytes) -> bool:
        """A frame of a link; False when it cannot be taken now."""
        if link.address not in self._links or (not self._reading and len(self._inbox) >= HIGH_WATER):
            link.blocked = True
            return False
        self._put(link.address, frame)
        return True

    def tick(self, now: float) -> None:
        """Move the clock, and do what is due then."""
        self.now = now
        if self.router is not None and self._reading:
            self.router.tick(now)
            self._plan()

    def _plug_all(self) -> None:
        self._reading = True
        waiting, self._unplugged = self._unplugged, {}
        for link in waiting:
            self._plug(link)

    def _plug(self, link: MemoryLink) -> None:
        # Not the address of an earlier connection, as with ZeroMQ: the session of that one stays with it.
        link.address = f"in memory {next(self._numbers)}".encode()
        self._links[link.address] = link
        self._origins[link.address] = link.origin
        asyncio.get_running_loop().call_soon(self._tell_up, link, link.address)

    def _tell_up(self, link: MemoryLink, address: bytes) -> None:
        if self._links.get(address) is link:
            link.up()

    def _put(self, address: bytes, frame: bytes | None) -> None:
        self._inbox.append((address, frame))
        self._plan()

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._planned = False
        router = self.router
        if router is None or not self._reading:
            return
        inbox, self._inbox = self._inbox, []
        for address, frame in inbox:
            if frame is not None:
                router.receive(address, frame, self.now, self._origins[address])
            else:
                router.peer_lost(address, self.now)
                del self._origins[address]
        router.tick(self.now)
        self._flush(router)
        router.notices.clear()
        for link in list(self._links.values()):
            link.writable()

    def _flush(self, router: Router) -> None:
        # Answers of sessions first, then those to strangers: the order of the broker's edge.
        while router.dirty:
            dirty, router.dirty[:] = list(router.dirty), []
            for outbox in dirty:
                outbox.listed = False
                link = self._links.get(outbox.peer)
                while (frame := outbox.take()) is not None:
                    if link is not None:
                        link.arrive(frame)
        strays, router.strays = router.strays, []
        for address, frame in strays:
            if address in self._links:
                self._links[address].arrive(frame)
