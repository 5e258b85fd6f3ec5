"""Bare ZeroMQ: two proxies in one process, XSUB to XPUB for events, ROUTER to DEALER for requests."""

import sys
from pathlib import Path
from threading import Thread
from typing import ClassVar

import zmq

from tools.benchmark.child import Child, module_command
from tools.benchmark.systems.base import System

_START_SECS = 10.0
_LISTENING = b"listening"


class Pyzmq(System):
    """The floor: what ZeroMQ from Python costs when nothing is built on it."""

    name: ClassVar[str] = "pyzmq"
    roles: ClassVar[str] = "tools.benchmark.roles.pyzmq"
    packages: ClassVar[tuple[str, ...]] = ("pyzmq",)

    def __init__(self) -> None:
        self._address = ""
        self._server: Child | None = None

    def start(self, directory: Path) -> None:
        """Start the proxies on ipc sockets in `directory`."""
        self._address = f"ipc://{directory}"
        self._server = Child("the pyzmq proxy", module_command(__name__, self._address))
        self._server.hear(_START_SECS)

    def address(self) -> str:
        """The common part of the sockets' addresses."""
        return self._address

    def stop(self) -> None:
        """End the process of the proxies."""
        if self._server is not None:
            self._server.close()

    def versions(self) -> dict[str, str]:
        """The versions of pyzmq and of libzmq under it."""
        return {**super().versions(), "libzmq": zmq.zmq_version()}


def _proxy(address: str, front: tuple[int, str], back: tuple[int, str]) -> Thread:
    sockets = []
    for kind, door in (front, back):
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        socket.set_hwm(0)
        socket.bind(f"{address}/{door}")
        sockets.append(socket)
    # zmq.proxy releases the interpreter lock for good, so the two threads do not slow each other down.
    return Thread(target=zmq.proxy, args=sockets)


def _main() -> None:
    address = sys.argv[1]
    proxies = [
        _proxy(address, (zmq.XSUB, "publishers"), (zmq.XPUB, "subscribers")),
        _proxy(address, (zmq.ROUTER, "callers"), (zmq.DEALER, "servers")),
    ]
    for proxy in proxies:
        proxy.start()
    sys.stdout.buffer.write(_LISTENING + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
