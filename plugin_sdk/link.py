"""The connection to the broker: one DEALER on the running event loop. The only place of the SDK that knows ZeroMQ."""

from __future__ import annotations

import asyncio
from typing import Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from plugin_sdk.discovery import Address
from plugin_sdk.wire.errors import ConnectionLost
from plugin_sdk.wire.limits import DEFAULT_LIMITS

BATCH = 256
LINGER_MS = 1000

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
    """A transport of frames to one broker."""

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
        max_frame: bytes of the largest frame to accept.
    """

    def __init__(self, address: Address, max_frame: int = DEFAULT_LIMITS.frame_bytes) -> None:
        self._address = address
        self._max_frame = max_frame
        self._blocked = False

    def open(self, listener: Listener) -> None:
        """Connect; raises ConnectionLost when the endpoint itself is malformed."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._configure(self._socket)
        self._monitor = self._socket.get_monitor_socket(_MONITORED)
        self._loop.add_reader(self._monitor.fileno(), self._on_monitor)
        self._loop.add_reader(self._socket.fileno(), self._on_readable)
        try:
            self._socket.connect(self._address.endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionLost(f"endpoint {self._address.endpoint!r} is not usable: {error}", "unavailable") from None
        # The descriptors are edge-triggered and silent until their state has been read once.
        self._on_monitor()
        self._on_readable()

    def send(self, frame: bytes) -> bool:
        """Hand over a frame; False when the queue is full or nobody is connected: on_writable follows."""
        try:
            self._socket.send(frame, NOBLOCK)
        except zmq.Again:
            self._blocked = True
            return False
        # Sending may consume the edge of the descriptor, and with it the news of frames that have arrived.
        if int(self._socket.getsockopt(EVENTS)) & POLLIN:
            self._loop.call_soon(self._on_readable)
        return True

    def close(self) -> None:
        """Close the sockets; the context ends in the background, at the latest with the process."""
        if self._socket.closed:
            return
        self._loop.remove_reader(self._monitor.fileno())
        self._loop.remove_reader(self._socket.fileno())
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=LINGER_MS)
        self._context.term()

    def _configure(self, socket: zmq.Socket[bytes]) -> None:
        socket.linger = LINGER_MS
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * self._max_frame)
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
        if self._socket.closed:
            return
        frames = self._receive()
        if frames:
            self._listener.on_frames(frames)
        if self._blocked and self._can_send():
            self._blocked = False
            self._listener.on_writable()

    def _receive(self) -> list[bytes]:
        frames: list[bytes] = []
        add, recv = frames.append, self._socket.recv
        try:
            for _ in range(BATCH):
                add(recv(NOBLOCK))
        except zmq.Again:
            return frames
        self._loop.call_soon(self._on_readable)
        return frames

    def _can_send(self) -> bool:
        return not self._socket.closed and bool(int(self._socket.getsockopt(EVENTS)) & POLLOUT)

    def _on_monitor(self) -> None:
        while not self._monitor.closed and int(self._monitor.getsockopt(EVENTS)) & POLLIN:
            event = recv_monitor_message(self._monitor, NOBLOCK)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._listener.on_up()
                self._on_readable()
            elif event == zmq.EVENT_DISCONNECTED:
                self._listener.on_down("the broker closed the connection or ended")
            elif event in _FAILURES:
                self._listener.on_down(f"{_FAILURES[event]} ({self._address.endpoint})")
