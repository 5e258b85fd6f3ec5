"""A plugin written from docs/PROTOCOL.md alone, with pyzmq and msgpack and nothing of plugmesh: stranger.py HOME

It registers, serves, subscribes, publishes and calls, prints what came of it as a line of JSON, and goes on serving
until it is interrupted. When the broker forgets it, it begins anew.
"""

import json
import secrets
import sys
from pathlib import Path
from typing import Any

import msgpack
import zmq

REGISTER, REGISTERED, REFUSED, PING, PONG, GOODBYE, OK = range(1, 8)
SUBSCRIBE, PUBLISH, EVENT, CREDIT, SERVE, CALL, REQUEST, REPLY, ERROR = 10, 12, 13, 14, 20, 22, 23, 24, 26


class AdmittedError(Exception):
    """A new session has begun, which knows nothing yet."""


class Stranger:
    def __init__(self, home: Path) -> None:
        self.key = (home / "keys" / "client.key").read_text().strip()
        self.nonce = secrets.token_hex(16)
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.connect(f"ipc://{home}/run/broker.sock")
        self.session, self.heartbeat_ms, self.ref, self.admitted = 0, 1000, 0, False
        self.outcomes: dict[int, Any] = {}
        self.events: list[Any] = []

    def send(self, *packet: Any) -> None:
        self.socket.send(msgpack.packb([self.session, list(packet)]))

    def ask(self, kind: int, *elements: Any) -> Any:
        self.ref = ref = self.ref + 1
        self.send(kind, ref, *elements)
        while ref not in self.outcomes:
            self.turn()
        return self.outcomes.pop(ref)

    def turn(self) -> None:
        if not self.socket.poll(self.heartbeat_ms):
            self.send(PING, 1)
            return
        number, *packets = msgpack.unpackb(self.socket.recv())
        for kind, *elements in packets:
            if kind == REGISTERED or number in (0, self.session):
                self.take(kind, elements)
        if self.admitted:
            self.admitted = False
            raise AdmittedError

    def register(self) -> None:
        self.socket.send(msgpack.packb([0, [REGISTER, [1], "plugin", "stranger", "1.0", "", self.nonce, self.key]]))

    def take(self, kind: int, elements: list[Any]) -> None:
        if kind == REGISTERED:
            self.admitted |= elements[1] != self.session
            self.session, self.heartbeat_ms = elements[1], elements[2]
        elif kind == REFUSED and elements[0] == "unknown_session":
            self.register()
        elif kind in (REFUSED, GOODBYE):
            sys.exit(f"{elements[0]}: {elements[1]}")
        elif kind == PING:
            self.send(PONG, elements[0])
        elif kind == EVENT:
            self.events.append([elements[1], msgpack.unpackb(elements[2][1])])
            self.send(CREDIT, 0, len(msgpack.packb(elements[2])) + 64)
        elif kind == REQUEST and elements[1] == "stranger.add":
            self.send(REPLY, elements[0], [{}, msgpack.packb(sum(msgpack.unpackb(elements[2][1])))])
        elif kind == REQUEST and elements[1].startswith("$plugin."):
            self.send(REPLY, elements[0], [{}, msgpack.packb({"ok": True})])
        elif kind in (OK, REPLY, ERROR):
            self.outcomes[elements[0]] = elements[1] if kind == ERROR else elements[1:] or "ok"

    def tour(self) -> None:
        self.events.clear()
        met = {"serve": self.ask(SERVE, "stranger.add"), "subscribe": self.ask(SUBSCRIBE, "stranger.*")}
        self.send(PUBLISH, 0, "stranger.came", [{"message-id": "1"}, msgpack.packb({"from": "afar"})])
        ((_, sum_body),) = self.ask(CALL, "stranger.add", [{}, msgpack.packb([1, 2])], 5000)
        met |= {"call": msgpack.unpackb(sum_body), "nobody": self.ask(CALL, "nobody.home", [{}, b""], 5000)}
        print(json.dumps({**met, "events": self.events}), flush=True)


if __name__ == "__main__":
    stranger = Stranger(Path(sys.argv[1]))
    work = stranger.register
    while True:
        try:
            work()
            work = stranger.turn
        except AdmittedError:
            work = stranger.tour
        except KeyboardInterrupt:
            stranger.send(GOODBYE, "goodbye", "done")
            break
