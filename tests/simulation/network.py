"""Connections between processes and a broker: each delays, none reorders, and all may fail.

As with ZeroMQ, a frame that was handed over may be lost with its connection, an address is never used twice, and the
two ends learn of a loss at different times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

from tests.simulation.loop import VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.link import SimulatedLink


class Pipe:
    """One direction of a connection.

    Args:
        network: the clock and the chance.
        arrive: takes frames at the other end.
        room: told when a sender that was refused may try again.
        context: in which both are called.
    """

    def __init__(
        self, network: Network, arrive: Callable[[list[bytes]], None], room: Callable[[], None], context: Context | None
    ) -> None:
        self._network = network
        self._arrive = arrive
        self._room = room
        self._context = context
        self._frames: deque[tuple[float, bytes]] = deque()
        self._last = 0.0
        self._planned = False
        self._refused = False
        self._holds = 0
        self.closed = False

    def __len__(self) -> int:
        return len(self._frames)

    def offer(self, frame: bytes) -> bool:
        """Send a frame; False when too much is on the way already."""
        if self.closed:
            return True
        if len(self._frames) >= self._network.capacity:
            self._refused = True
            return False
        self._last = max(self._last, self._network.loop.time() + self._network.latency())
        self._frames.append((self._last, frame))
        self._network.digest = crc32(frame, self._network.digest)
        self._plan()
        return True

    def hold(self) -> None:
        """Deliver nothing for now."""
        self._holds += 1

    def release(self) -> None:
        """Go on; what has waited is delivered at once."""
        self._holds -= 1
        self._plan()

    def close(self, survivors: int) -> list[bytes]:
        """End it; returns the frames, at most `survivors`, that had made it to the other end."""
        self.closed = True
        kept = [frame for _, frame in list(self._frames)[:survivors]]
        self._frames.clear()
        return kept

    def _plan(self) -> None:
        if self._frames and not (self._planned or self._holds):
            self._planned = True
            self._network.loop.call_at(self._frames[0][0], self._pump, context=self._context)

    def _pump(self) -> None:
        self._planned = False
        if self._holds or not self._frames:
            return
        now = self._network.loop.time()
        arrived: list[bytes] = []
        while self._frames and self._frames[0][0] <= now:
            arrived.append(self._frames.popleft()[1])
        self._plan()
        if arrived:
            self._arrive(arrived)
        if self._refused and len(self._frames) < self._network.capacity:
            self._refused = False
            self._room()


class Connection:
    """One transport connection of a link to the broker that ran when it was made."""

    def __init__(self, network: Network, address: bytes, link: SimulatedLink, port: Port) -> None:
        self.address = address
        self.port = port
        self.known_to_broker = True
        self.up = Pipe(network, self._to_broker, link.on_room, link.context)
        self.down = Pipe(network, link.on_arrival, lambda: None, link.context)

    def _to_broker(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.port.take(self.address, frame)


class Port:
    """The broker's end of all connections: what its socket is made of."""

    def __init__(self, on_frame: Callable[[], None]) -> None:
        self.inbox: deque[tuple[bytes, bytes]] = deque()
        self.connections: dict[bytes, Connection] = {}
        self.open = True
        self._on_frame = on_frame

    def take(self, address: bytes, frame: bytes) -> None:
        """A frame has arrived."""
        if self.open:
            self.inbox.append((address, frame))
            self._on_frame()


class Network:
    """Everything between the processes and the broker.

    Args:
        loop: the clock.
        chance: decides on delays and losses.
    """

    def __init__(self, loop: VirtualLoop, chance: Random) -> None:
        self.loop = loop
        self.port: Port | None = None
        self.base = chance.choice((0.0002, 0.001, 0.02))
        self.capacity = chance.choice((1, 4, 20))  # frames on the way in one direction before the sender hears EAGAIN
        self.calm = False
        self.digest = 0
        self._chance = chance
        self._addresses = 0

    def latency(self) -> float:
        """How long the next frame is on its way, in seconds."""
        random = self._chance.random()
        return self.base * (1 + random) + (0.2 * random if random > 0.97 else 0.0)

    def pause(self, longest: float) -> float:
        """Some time, mostly short."""
        return longest * self._chance.random() ** 3

    def connect(self, link: SimulatedLink) -> Connection | None:
        """A new connection, or None while nobody listens."""
        port = self.port
        if port is None or not port.open:
            return None
        self._addresses += 1
        address = b"\x00" + self._addresses.to_bytes(4, "big")
        connection = port.connections[address] = Connection(self, address, link, port)
        return connection

    def cut(self, connection: Connection, unnoticed: float) -> list[bytes]:
        """Break a connection; a part of what was on its way arrives.

        Args:
            connection: which.
            unnoticed: seconds that the broker takes to notice, at most.

        Returns:
            The frames that had arrived at the process.
        """
        for frame in connection.up.close(self._survivors(connection.up)):
            connection.port.take(connection.address, frame)
        self.loop.call_later(self.pause(unnoticed), self.forget, connection)
        return connection.down.close(self._survivors(connection.down))

    def leave(self, connection: Connection) -> None:
        """The process closes a connection: what it has sent still arrives, what was sent to it does not."""
        connection.down.close(0)
        self._when_sent(connection)

    def forget(self, connection: Connection) -> None:
        """The broker's end is gone, too."""
        connection.known_to_broker = False
        connection.up.close(0)
        connection.port.connections.pop(connection.address, None)

    def _when_sent(self, connection: Connection) -> None:
        if len(connection.up):
            self.loop.call_later(0.01, self._when_sent, connection)
        else:
            self.forget(connection)

    def _survivors(self, pipe: Pipe) -> int:
        return self._chance.randint(0, len(pipe)) if len(pipe) else 0
