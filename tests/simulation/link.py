"""The counterpart of `plugin_sdk.link.DealerLink`: it reconnects for ever, and says a little late what happened."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context

from plugin_sdk.link import Listener
from tests.simulation.network import Connection, Network

CONNECT_SECS, RETRY_SECS = 0.001, 0.05
SILENT_LOSS_SECS = 5.0  # how long the broker may take to notice that nobody is at the other end any more
FOUND_OUT_SECS = 20.0  # HEARTBEAT_IVL and HEARTBEAT_TIMEOUT of DealerLink
LATE_NEWS_SECS = 0.1  # how late a process with a busy loop may learn what became of its connection


class SimulatedLink:
    """A Link of one process.

    Args:
        network: what it is connected to.
        context: in which its listener is called.
    """

    def __init__(self, network: Network, context: Context) -> None:
        self.context = context
        self.connection: Connection | None = None
        self._network = network
        self._loop = network.loop
        self._listener: Listener | None = None
        self._dialled = 0
        self._blocked = False
        self._unreachable = 0
        self._stopped = 0
        self._news: deque[tuple[float, Callable[[], None]]] = deque()
        self._news_planned = False

    @property
    def is_well(self) -> bool:
        """Whether it is connected, and nothing hinders it."""
        connection = self.connection
        stands = connection is not None and not connection.up.closed
        return stands and not (self._unreachable or self._stopped or self._news)

    def open(self, listener: Listener) -> None:
        """Begin to connect, and to reconnect for ever."""
        self._listener = listener
        self._blocked = False
        self._dial(CONNECT_SECS)

    def send(self, frame: bytes) -> bool:
        """Hand over a frame; False when the transport is full or down."""
        if self.connection is None or not self.connection.up.offer(frame):
            self._blocked = True
            return False
        return True

    def close(self) -> None:
        """End it; what was handed over still arrives."""
        self._dialled += 1
        self._listener = None
        self._news.clear()
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self._unreachable:
            self._network.cut(connection, SILENT_LOSS_SECS)
        else:
            self._network.leave(connection)

    def die(self, unnoticed: float) -> None:
        """The process is killed: its connection breaks, and nobody here hears of anything any more."""
        connection = self.connection
        self.connection = None
        self._dialled += 1
        self._listener = None
        self._news.clear()
        if connection is not None:
            self._network.cut(connection, unnoticed)

    def drop(self, unnoticed: float) -> None:
        """The connection breaks; the broker notices within `unnoticed` seconds, this side soon."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        arrived = self._network.cut(connection, unnoticed)
        self._tell(lambda: self._on_down(arrived, "the broker closed the connection or ended"))
        self._dial(RETRY_SECS)

    def lose_silently(self) -> None:
        """The connection is gone, and nobody tells this side before ZeroMQ itself finds out."""
        if self.connection is not None:
            self._network.cut(self.connection, SILENT_LOSS_SECS)
            self._loop.call_later(FOUND_OUT_SECS, self._find_out, self.connection, context=self.context)

    def stop_reading(self) -> None:
        """The process is busy or stopped: it takes nothing off the wire, and hears no news."""
        self._stopped += 1
        if self.connection is not None:
            self.connection.down.hold()

    def go_on_reading(self) -> None:
        """It reads again."""
        self._stopped -= 1
        if self.connection is not None:
            self.connection.down.release()
        self._plan_news()

    def cut_off(self) -> None:
        """The network in between swallows everything, and tells nobody."""
        self._unreachable += 1
        if self.connection is not None:
            self.connection.up.hold()
            self.connection.down.hold()

    def reconnect(self) -> None:
        """The network in between works again."""
        self._unreachable -= 1
        if self.connection is not None:
            self.connection.up.release()
            self.connection.down.release()

    def on_arrival(self, frames: list[bytes]) -> None:
        """Frames have come over the present connection, of which the process hears first."""
        while self._news:
            self._news.popleft()[1]()
        self._deliver(frames)

    def on_room(self) -> None:
        """The transport takes frames again."""
        if self._blocked and self._listener is not None:
            self._blocked = False
            self._listener.on_writable()

    def _find_out(self, connection: Connection) -> None:
        if self.connection is connection:
            self.connection = None
            self._tell(lambda: self._on_down([], "the heartbeats of the connection stopped"))
            self._dial(RETRY_SECS)

    def _deliver(self, frames: list[bytes]) -> None:
        if frames and self._listener is not None:
            self._listener.on_frames(frames)

    def _dial(self, delay: float) -> None:
        self._dialled += 1
        self._loop.call_later(delay, self._connect, self._dialled, context=self.context)

    def _connect(self, dialled: int) -> None:
        if dialled != self._dialled:
            return
        connection = None if self._unreachable else self._network.connect(self)
        if connection is None:
            if not self._unreachable:
                self._tell(lambda: self._on_down([], "nobody listens there"))
            self._dial(RETRY_SECS * 2)
            return
        self.connection = connection
        for _ in range(self._stopped):
            connection.down.hold()
        self._tell(self._on_up)
        self._loop.call_soon(self.on_room, context=self.context)

    def _tell(self, news: Callable[[], None]) -> None:
        """News of the connection: later than it happened, but never in another order."""
        late = 0.0 if self._network.calm else self._network.pause(LATE_NEWS_SECS)
        when = max(self._loop.time() + late, self._news[-1][0] if self._news else 0.0)
        self._news.append((when, news))
        self._plan_news()

    def _plan_news(self) -> None:
        if self._news and not (self._news_planned or self._stopped):
            self._news_planned = True
            self._loop.call_at(self._news[0][0], self._hear_news, context=self.context)

    def _hear_news(self) -> None:
        self._news_planned = False
        if self._stopped or not self._news:
            return
        if self._news[0][0] <= self._loop.time():
            self._news.popleft()[1]()
        self._plan_news()

    def _on_up(self) -> None:
        if self._listener is not None:
            self._listener.on_up()

    def _on_down(self, arrived: list[bytes], reason: str) -> None:
        self._deliver(arrived)
        if self._listener is not None:
            self._listener.on_down(reason)
