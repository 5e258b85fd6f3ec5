"""A peer without the SDK: a bare DEALER that says whatever it is told to, and reads only when it is told to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import zmq
from msgspec import msgpack

from plugin_sdk.wire.errors import BusError

PATIENCE = 10.0
REGISTER, REGISTERED, REFUSED, PING, PONG, GOODBYE, OK = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, UNSUBSCRIBE, PUBLISH, EVENT, CREDIT = 10, 11, 12, 13, 14
SERVE, WITHDRAW, CALL, REQUEST, REPLY, CHUNK, ERROR, CANCEL = 20, 21, 22, 23, 24, 25, 26, 27


class NoAnswer(Exception):
    """The broker did not say what it was expected to say; the text tells what came instead."""


class Guest:
    """One connection.

    Args:
        endpoint: of the broker.
        key: what admits it.
        routing_id: what it claims to be called in the transport; empty lets ZeroMQ choose.
        queue: how many frames may wait for it here before they wait at the broker; 0 for no bound.
    """

    def __init__(self, endpoint: str, key: str = "", *, routing_id: bytes = b"", queue: int = 0) -> None:
        self.key = key
        self.session = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvhwm = queue
        self._socket.sndhwm = 0
        if queue:
            # Otherwise megabytes would be in the buffers of the system before anything waits at the broker.
            self._socket.rcvbuf = 4096
        if routing_id:
            self._socket.routing_id = routing_id
        self._socket.connect(endpoint)
        self._packets: list[list[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Vanish."""
        self._socket.close()
        self._context.term()

    def send_raw(self, *frames: bytes) -> None:
        """Send one ZeroMQ message of these frames."""
        self._socket.send_multipart(frames)

    def send(self, *packets: list[Any], session: int | None = None) -> None:
        """Send packets in one frame, under its own session number or another."""
        self.send_raw(msgpack.encode([self.session if session is None else session, *packets]))

    def register(self, name: str = "guest", role: str = "client", *, patience: float = PATIENCE, **fields: Any) -> int:
        """Register; returns the session number, raises BusError with the code of a refusal."""
        nonce = f"{id(self)}-{time.monotonic_ns()}"
        given: dict[str, Any] = {"versions": [1], "version": "", "instance": "", "nonce": nonce}
        given |= {"token": self.key, "language": "", "sdk": "", "services": [], "info": {}, **fields}
        order = ("version", "instance", "nonce", "token", "language", "sdk", "services", "info")
        self.send([REGISTER, given["versions"], role, name, *(given[each] for each in order)], session=0)
        answer = self.expect(REGISTERED, REFUSED, patience=patience)
        if answer[0] == REFUSED:
            raise BusError(answer[1], answer[2])
        self.session = answer[2]
        return self.session

    def expect(self, *kinds: int, ref: int | None = None, patience: float = PATIENCE) -> list[Any]:
        """The next packet of one of these kinds, with this ref if one is given; others are passed over.

        Raises:
            NoAnswer: none came in time.
        """
        for packet in self.listen(patience):
            if packet[0] in kinds and (ref is None or packet[1] == ref):
                return packet
        raise NoAnswer(f"no packet of kind {kinds} (ref {ref}) within {patience:g} s")

    def asked(self, service: str) -> int:
        """The number of the next request for this service; what the broker itself asks of plugins is passed over."""
        while True:
            _, number, wanted, *_ = self.expect(REQUEST)
            if wanted == service:
                return int(number)

    def listen(self, patience: float) -> Iterator[list[Any]]:
        """Every packet that comes until nothing has come for `patience` seconds."""
        while self._packets or self._socket.poll(round(patience * 1000)):
            if not self._packets:
                _, *self._packets = msgpack.decode(self._socket.recv())
            if self._packets:
                yield self._packets.pop(0)

    def is_heard(self, patience: float = PATIENCE) -> bool:
        """Whether its session stands: a PING is answered."""
        number = time.monotonic_ns() % 2**40
        self.send([PING, number, {}])
        for packet in self.listen(patience):
            if packet[:2] == [PONG, number]:
                return True
            if packet[0] in (REFUSED, GOODBYE):
                return False
        return False


def payload(body: bytes = b"") -> list[Any]:
    """The payload of a PUBLISH, CALL or REPLY."""
    return [{}, body]
