"""A dialogue between two peers and the router, as it really happens, for docs/PROTOCOL.md.

The peers' side is packed by the msgpack package; the broker's side is what `broker.core` answers. Session numbers
come from a seed and time stands still, so the same code always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from broker.core import Router
from broker.core.sessions import Origin
from tools.protocol.values import pack, unpack

BROKER, HELLO, PROBE = "broker", "hello", "probe"
NONCES = {HELLO: "c0ffee01", PROBE: "c0ffee02"}
KEY = "key-of-the-home"
HEARTBEAT = 5.0
LOGIN = [{"message-id": "1"}, pack({"user_id": "12345"})]
ADA, GREETING = [{}, pack("Ada")], [{}, pack("Hello, Ada!")]
FIRST, SECOND, EMPTY = [{}, pack("first")], [{}, pack("second")], [{}, b""]


@dataclass(frozen=True)
class Line:
    """One frame that one side sent, or, with an empty sender, a remark on what follows."""

    sender: str
    receiver: str
    frame: bytes
    remark: str = ""


class Stage:
    """A router with named peers that speak to it and hear its answers."""

    def __init__(self) -> None:
        self.router = Router(heartbeat=HEARTBEAT, seed=1)
        self.router.admission.set_keys({KEY: "operator"})
        self.lines: list[Line] = []
        self._heard: dict[str, dict[int, list[Any]]] = {}
        self._sessions: dict[str, int] = {}
        self._now = 0.0

    def remark(self, text: str) -> None:
        """Say what comes next."""
        self.lines.append(Line("", "", b"", text))

    def says(self, peer: str, *packets: list[Any]) -> None:
        """Let a peer send one frame, and the broker answer."""
        frame = pack([self._sessions.get(peer, 0), *packets])
        self.lines.append(Line(peer, BROKER, frame))
        origin = Origin("ipc", pid=4711 if peer == HELLO else 4712, uid=1000)
        self.router.receive(peer.encode(), frame, self._now, origin)
        self._hear()

    def waits(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self.router.tick(self._now)
        self._hear()

    def heard(self, peer: str, kind: int) -> list[Any]:
        """The last packet of a kind that a peer was sent."""
        return self._heard[peer][kind]

    def _hear(self) -> None:
        for peer, frame in self._outgoing():
            self.lines.append(Line(BROKER, peer, frame))
            number, *packets = unpack(frame)
            self._heard.setdefault(peer, {}).update({packet[0]: packet for packet in packets})
            if number:
                self._sessions[peer] = number

    def _outgoing(self) -> Iterator[tuple[str, bytes]]:
        for outbox in self.router.dirty:
            outbox.listed = False
            while (frame := outbox.take()) is not None:
                yield outbox.peer.decode(), frame
        self.router.dirty.clear()
        yield from ((peer.decode(), frame) for peer, frame in self.router.strays)
        self.router.strays.clear()


def play() -> list[Line]:
    """The whole dialogue."""
    stage = Stage()
    refs = count(1)
    _register(stage)
    _events(stage, refs)
    _requests(stage, refs)
    _streams(stage, refs)
    _mishaps(stage, refs)
    _parting(stage)
    return stage.lines


def _register(stage: Stage) -> None:
    stage.remark("A frame before the registration: the broker does not know the sender.")
    stage.says(HELLO, [4, 1])
    stage.remark("The plugin `hello` registers, with the key that it read in the broker's home.")
    services, info = ["hello.greet"], {"pid": 4711}
    stage.says(HELLO, [1, [1], "plugin", HELLO, "1.0.0", "", NONCES[HELLO], KEY, "c", "sketch/1", services, info])
    stage.remark("So does a client, with nothing but what is required and the key.")
    stage.says(PROBE, [1, [1], "client", PROBE, "", "", NONCES[PROBE], KEY])


def _events(stage: Stage, refs: Iterator[int]) -> None:
    stage.remark("The plugin serves a name and subscribes to a pattern, both in one frame, and is told that both hold.")
    stage.says(HELLO, [20, next(refs), "hello.greet"], [10, next(refs), "user.*", None, {"overflow": "drop_oldest"}])
    stage.remark("The client publishes; nobody acknowledges that. The event goes to the plugin's subscription 2.")
    stage.says(PROBE, [12, 0, "user.login", LOGIN])
    size = len(pack(LOGIN))
    stage.remark(f"The plugin has handled it and gives its credit back: {size} bytes of payload and 64.")
    stage.says(HELLO, [14, 0, size + 64])


def _requests(stage: Stage, refs: Iterator[int]) -> None:
    stage.remark("The client calls with a deadline of 2 s, and gets the plugin's reply under its own ref.")
    stage.says(PROBE, [22, 1, "hello.greet", ADA, 2000])
    stage.says(HELLO, [24, stage.heard(HELLO, 23)[1], GREETING])
    stage.remark("Nobody serves this name.")
    stage.says(PROBE, [22, 2, "nobody.home", ADA, 2000])
    stage.remark("A handler that raises answers with an error.")
    stage.says(PROBE, [22, 3, "hello.greet", EMPTY, 2000])
    stage.says(HELLO, [26, stage.heard(HELLO, 23)[1], "bad_request", "greet wants a name"])
    stage.remark("The client gives up on a request: the plugin is told, the client gets its one outcome.")
    stage.says(PROBE, [22, 4, "hello.greet", ADA, 2000])
    stage.says(PROBE, [27, 4])


def _streams(stage: Stage, refs: Iterator[int]) -> None:
    stage.remark("A streamed reply: two chunks, credit for two more, then the reply with an empty body ends it.")
    stage.says(PROBE, [22, 5, "hello.greet", ADA, 2000, {"stream": True}])
    request = stage.heard(HELLO, 23)[1]
    stage.says(HELLO, [25, request, FIRST], [25, request, SECOND])
    stage.says(PROBE, [14, 5, 2])
    stage.says(HELLO, [24, request, EMPTY])


def _mishaps(stage: Stage, refs: Iterator[int]) -> None:
    stage.remark("A packet of a kind from the future, one with a subject that the grammar refuses, and a bare number.")
    stage.says(HELLO, [99, "?"])
    stage.says(HELLO, [10, next(refs), "user..login"])
    stage.says(HELLO, 5)  # type: ignore[arg-type]


def _parting(stage: Stage) -> None:
    stage.remark("Both are silent for a heartbeat: the broker asks whether they are there.")
    stage.waits(HEARTBEAT)
    stage.says(HELLO, [5, 0])
    stage.remark("The client asks too, the plugin leaves.")
    stage.says(PROBE, [4, 7, {"busy": 0}])
    stage.says(HELLO, [6, "goodbye", "done"])
