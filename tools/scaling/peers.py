"""1,000 registrations of light clients, and of plugins that were started by hand, all from one process."""

import secrets
import time
from collections.abc import Callable

import msgpack
import zmq

from tools.scaling.figures import Figure, ScaleError
from tools.scaling.light import GOODBYE, PING, PONG, REGISTER, REGISTERED
from tools.scaling.mesh import Broker, fresh_broker

PEERS, BOUND_SECS = 1000, 5.0
_LIMIT_SECS = 60.0


def measure(progress: Callable[[str], None], number: int = PEERS) -> list[Figure]:
    """Registers all of them at once with a broker without plugins; raises ScaleError when one is refused."""
    detail = "from the first connection to the last answer"
    figures = []
    for role in ("client", "plugin"):
        with fresh_broker() as broker:
            broker.run()
            secs = _register_all(broker, role, number)
            progress(f"{number} {role}s are registered")
            broker.stop()
        figures.append(Figure(f"{number} registrations of {role}s", secs, BOUND_SECS, "s", detail))
    return figures


def _register_all(broker: Broker, role: str, number: int) -> float:
    key = (broker.home / "keys" / "client.key").read_text().strip()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, number + 10)
    sockets = []
    try:
        began = time.monotonic()
        for each in range(number):
            socket = context.socket(zmq.DEALER)
            sockets.append(socket)
            socket.connect(f"ipc://{broker.home}/run/broker.sock")
            register = [REGISTER, [1], role, f"{role}{each}", "", "", secrets.token_hex(8), key]
            socket.send(msgpack.packb([0, register]))
        sessions = _sessions(sockets, began)
        secs = time.monotonic() - began
        for socket, session in sessions.items():
            socket.send(msgpack.packb([session, [GOODBYE, "goodbye", "done"]]))
    finally:
        for socket in sockets:
            socket.close(linger=1000)
        context.term()
    return secs


def _sessions(sockets: list[zmq.Socket[bytes]], began: float) -> dict[zmq.Socket[bytes], int]:
    """Waits until every peer has a session; those that have one are not listened to any more."""
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    found: dict[zmq.Socket[bytes], int] = {}
    while len(found) < len(sockets):
        if time.monotonic() - began > _LIMIT_SECS:
            raise ScaleError(f"{len(found)} of {len(sockets)} peers were registered within {_LIMIT_SECS:g} s")
        for socket, _ in poller.poll(1000):
            assert isinstance(socket, zmq.Socket)
            number, *packets = msgpack.unpackb(socket.recv())
            for kind, *elements in packets:
                if kind == REGISTERED:
                    found[socket] = elements[1]
                    poller.unregister(socket)
                elif kind == PING:
                    socket.send(msgpack.packb([number, [PONG, elements[0]]]))
                elif not found.get(socket):
                    raise ScaleError(f"a registration was refused: {elements}")
    return found
