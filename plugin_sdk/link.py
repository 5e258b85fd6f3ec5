"""The connection to the broker: one DEALER on the running event loop. The only place of the SDK that knows ZeroMQ."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from plugin_sdk.discovery import Address
from plugin_sdk.wire.errors import ConnectionLost

BATCH = 256
LINGER_MS = 1000

# The largest frame: twice what a broker can be configured to take, as it may bundle packets for us. ZeroMQ closes the
# connection beyond it, and the size must be known before the broker says what its limit is.
MAX_FRAME_BYTES = 2 * 256 * 1024 * 1024

# As plain integers: the flag arithmetic of pyzmq's enumerations costs a microsecond each time.
NOBLOCK, POLLIN, POLLOUT, EVENTS = int(zmq.NOBLOCK), int(zmq.POLLIN), int(zmq.POLLOUT), int(zmq.EVENTS)
_FAILURES: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the broker does not know this CURVE key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the other side does not speak this protocol or its CURVE key is another",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed",
    zmq.EVENT_CLOSED: "nobody listens there",
    zmq.EVENT_CONNECT_RETRIED: "nobody listens there",
}
_MONITORED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | sum(_FAILURES)


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop that can watch ZeroMQ's descriptors: on Windows the default one cannot."""
    return asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()


class Listener(Protocol):
    """Who uses a link."""

    def on_up(self) -> None:
        """A connection stands, new or again."""

    def on_down(self, reason: str) -> None:
        """There is no connection; `reason` is for people. May be said several times."""

    def on_frames(self, frames: list[bytes]) -> None:
        """These arrived, in order."""

    def on_writable(self) -> None:
        """A send that was refused may be tried again."""


class Link(Protocol):
    """A transport of frames to one broker. After close() it may be opened again, which makes a new connection."""

    def open(self, listener: Listener) -> None:
        """Begin to connect, and to reconnect for ever."""

    def send(self, frame: bytes) -> bool:
        """Hand over a frame; False when the transport is full or down."""

    def close(self) -> None:
        """End it; what was handed over is still sent for up to a second."""


class DealerLink:
    """A Link over a ZeroMQ DEALER socket.

    Args:
        address: where to, with what key.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._blocked = False
        self._socket: zmq.Socket[bytes] | None = None

    def open(self, listener: Listener) -> None:
        """Connect; raises ConnectionLost when the endpoint itself is malformed."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._blocked = False
        socket = self._socket = self._context.socket(zmq.DEALER)
        self._configure(socket)
        self._monitor = socket.get_monitor_socket(_MONITORED)
        try:
            self._loop.add_reader(self._monitor.fileno(), self._on_monitor)
            self._loop.add_reader(socket.fileno(), self._on_readable)
            socket.connect(self._address.endpoint)
        except NotImplementedError:
            self._discard(socket)
            text = "this event loop cannot watch sockets: on Windows use asyncio.SelectorEventLoop"
            raise ConnectionLost(text, "unsupported") from None
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionLost(f"endpoint {self._address.endpoint!r} is not usable: {error}", "unavailable") from None
        # The descriptors are edge-triggered and silent until their state has been read once.
        self._on_monitor()
        self._on_readable()

    def send(self, frame: bytes) -> bool:
        """Hand over a frame; False when the queue is full or nobody is connected: on_writable follows."""
        socket = self._socket
        if socket is None:
            return False
        try:
            socket.send(frame, NOBLOCK)
        except zmq.Again:
            self._blocked = True
            return False
        # Sending may consume the edge of the descriptor, and with it the news of frames that have arrived.
        if int(socket.getsockopt(EVENTS)) & POLLIN:
            self._loop.call_soon(self._on_readable)
        return True

    def close(self) -> None:
        """Close the connection; what was handed over is still sent for up to a second."""
        socket, self._socket = self._socket, None
        if socket is None:
            return
        self._loop.remove_reader(self._monitor.fileno())
        self._loop.remove_reader(socket.fileno())
        self._discard(socket)

    def _discard(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = None
        socket.disable_monitor()
        self._monitor.close(linger=0)
        socket.close(linger=LINGER_MS)
        # It waits for the linger, which must not stop the loop; the process in turn must not end before it.
        threading.Thread(target=self._context.term, name="plugmesh-linger").start()

    def _configure(self, socket: zmq.Socket[bytes]) -> None:
        socket.linger = LINGER_MS
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        # Without a connection nothing is queued: what a reconnect would deliver late belongs to an old session.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        if self._address.curve is not None:
            socket.curve_serverkey = self._address.curve.server
            socket.curve_publickey = self._address.curve.public
            socket.curve_secretkey = self._address.curve.secret
        if self._address.endpoint.startswith("tcp:"):
            socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15_000)

    def _on_readable(self) -> None:
        # What became of the connection must be known before what came over the next one: a session that was begun there
        # would be taken for lost.
        self._on_monitor()
        frames = self._receive()
        if frames:
            self._listener.on_frames(frames)
        if self._blocked and self._can_send():
            self._blocked = False
            self._listener.on_writable()

    def _receive(self) -> list[bytes]:
        """A batch of frames; the next one follows in a turn of its own, so that others get theirs."""
        frames: list[bytes] = []
        if self._socket is None:
            return frames
        add, recv, getsockopt = frames.append, self._socket.recv, self._socket.getsockopt
        for _ in range(BATCH):
            # Asking first costs a fraction of the exception at the end.
            if not int(getsockopt(EVENTS)) & POLLIN:
                return frames
            add(recv(NOBLOCK))
        self._loop.call_soon(self._on_readable)
        return frames

    def _can_send(self) -> bool:
        return self._socket is not None and bool(int(self._socket.getsockopt(EVENTS)) & POLLOUT)

    def _on_monitor(self) -> None:
        monitor = self._monitor
        while not monitor.closed and int(monitor.getsockopt(EVENTS)) & POLLIN:
            event = recv_monitor_message(monitor, NOBLOCK)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._listener.on_up()
                self._on_readable()
            elif event == zmq.EVENT_DISCONNECTED:
                self._on_disconnected()
            elif event in _FAILURES:
                self._listener.on_down(f"{_FAILURES[event]} ({self._address.endpoint})")

    def _on_disconnected(self) -> None:
        # What arrived before the end counts: replies, and the broker's last words.
        while frames := self._receive():
            self._listener.on_frames(frames)
        self._listener.on_down("the broker closed the connection or ended")
