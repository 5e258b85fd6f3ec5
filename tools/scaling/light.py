"""A plugin that costs next to nothing, with pyzmq and msgpack alone; it notes when each step of its life began.

The broker starts it from a copy, so it imports nothing of plugmesh. Its configuration says how many seconds it takes to
start and to clean up.
"""

import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import zmq

REGISTER, REGISTERED, REFUSED, PING, PONG, GOODBYE = range(1, 7)
REQUEST, REPLY = 23, 24
NOTES = "moments"


class Light:
    """One session, and the answers to the commands of the broker."""

    def __init__(self) -> None:
        self.name, self.token = os.environ["BROKER_PLUGIN"], os.environ["BROKER_TOKEN"]
        self.notes = Path(os.environ["BROKER_DATA_DIR"], NOTES)
        self.session, self.heartbeat_ms = 0, 1000
        self.config: dict[str, float] = {}
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.connect(os.environ["BROKER_ENDPOINT"])

    def run(self) -> None:
        """Register, and do as told until the cleanup is done."""
        self.note("began")
        nonce = secrets.token_hex(16)
        self.socket.send(msgpack.packb([0, [REGISTER, [1], "plugin", self.name, "1.0", "", nonce, self.token]]))
        while self.turn():
            pass
        self.send(GOODBYE, "goodbye", "done")
        self.socket.close(linger=1000)
        zmq.Context.instance().term()

    def turn(self) -> bool:
        """Take one frame, or say that this still lives; returns whether it goes on."""
        if not self.socket.poll(self.heartbeat_ms):
            self.send(PING, 1)
            return True
        _, *packets = msgpack.unpackb(self.socket.recv())
        return all(self.take(kind, elements) for kind, *elements in packets)

    def take(self, kind: int, elements: list[Any]) -> bool:
        """Take one packet."""
        if kind == REGISTERED:
            self.session, self.heartbeat_ms = elements[1], elements[2]
        elif kind in (REFUSED, GOODBYE):
            sys.exit(f"{elements[0]}: {elements[1]}")
        elif kind == PING:
            self.send(PONG, elements[0])
        elif kind == REQUEST:
            return self.obey(elements[0], elements[1].removeprefix("$plugin."), msgpack.unpackb(elements[2][1]))
        return True

    def obey(self, request: int, command: str, body: Any) -> bool:
        """Do what a command says; returns whether it was not the last one."""
        if command == "initialize":
            self.config = body["config"]
        if command in ("start", "cleanup"):
            self.note(command)
            time.sleep(self.config.get(command, 0.0))
            self.note(f"{command} done")
        self.send(REPLY, request, [{}, msgpack.packb({"ok": True})])
        return command != "cleanup"

    def send(self, *packet: Any) -> None:
        """Send one packet."""
        self.socket.send(msgpack.packb([self.session, list(packet)]))

    def note(self, moment: str) -> None:
        """Write down what happens now, by the clock that all processes share."""
        with self.notes.open("a") as notes:
            notes.write(f"{time.monotonic()} {moment}\n")


if __name__ == "__main__":
    Light().run()
