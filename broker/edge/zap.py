"""The ZAP handler: which CURVE keys may connect over TCP (RFC 27, rfc.zeromq.org/spec/27).

It must be bound before the TCP endpoint is: without a handler, libzmq's CURVE admits any key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import zmq
from zmq.utils import z85

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
DOMAIN = "plugmesh"


class KeyGate:
    """Answers libzmq's question for every new connection from a table of public keys.

    Args:
        context: the context of the ROUTER.
        keys: from public key (Z85, 40 characters) to the name that it proves.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Mapping[str, str]) -> None:
        self._context = context
        self._keys = dict(keys)
        self._socket: zmq.Socket[bytes] | None = None
        self.refused = 0

    def start(self) -> None:
        """Bind the handler and serve it from the running event loop."""
        socket = self._context.socket(zmq.REP)
        socket.linger = 0
        socket.bind(ZAP_ENDPOINT)
        self._socket = socket
        asyncio.get_running_loop().add_reader(socket.fileno(), self._on_readable)

    def set_keys(self, keys: Mapping[str, str]) -> None:
        """Replace the table; connections that exist stay."""
        self._keys = dict(keys)

    def close(self) -> None:
        """Stop serving: from now on no key is admitted."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _on_readable(self) -> None:
        # The descriptor is edge-triggered: answer until nothing is left.
        while self._socket is not None and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._socket.send_multipart(self._answer(self._socket.recv_multipart()))

    def _answer(self, request: list[bytes]) -> list[bytes]:
        version, number, domain, mechanism = request[0], request[1], request[2], request[5]
        user = ""
        if domain == DOMAIN.encode() and mechanism == b"CURVE" and len(request) > 6:
            user = self._keys.get(z85.encode(request[6]).decode("ascii"), "")
        if user:
            return [version, number, b"200", b"OK", user.encode(), b""]
        self.refused += 1
        return [version, number, b"400", b"this key is not known to the broker", b"", b""]
