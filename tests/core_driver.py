"""Peers that play against the router without sockets: a clock that the test moves, and every packet decoded.

Every frame goes through the real codec in both directions, so a test sees exactly what a peer would see.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar, cast

from msgspec import Raw

from broker.core import Router
from broker.core.notices import Notice
from broker.core.sessions import Origin, Session
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, decode_payload, encode_frame, encode_payload
from plugin_sdk.wire.limits import EVENT_OVERHEAD, Limits

OPERATOR_KEY = "operator-key"
LOCAL = Origin("local")

T = TypeVar("T")
N = TypeVar("N", bound=Notice)


def payload(body: bytes = b"", headers: dict[str, str] | None = None) -> Raw:
    """A payload as it stands in PUBLISH, CALL and REPLY."""
    return Raw(encode_payload(body, headers))


def cost(body: bytes = b"") -> int:
    """What an event with this body and no headers takes from credit, in bytes."""
    return len(payload(body)) + EVENT_OVERHEAD


def body(packet: p.Event | p.Request | p.Reply | p.Chunk) -> bytes:
    """The body inside a packet that a peer has received."""
    return decode_payload(packet.payload)[1]


class Mesh:
    """A router, a clock that stands still until it is moved, and a transport that never fails unless told to."""

    def __init__(self, limits: Limits | None = None, **options: Any) -> None:
        self.router = Router(limits or Limits(), **options)
        self.router.admission.set_keys({OPERATOR_KEY: "operator"})
        self.now = 1000.0
        self.peers: dict[bytes, Peer] = {}
        self._addresses = 0

    def connect(self, **origin: Any) -> Peer:
        """A connection that has not said anything yet; `origin` is what the transport knows of it."""
        self._addresses += 1
        pid = 1000 + self._addresses
        known = Origin(**{"transport": "ipc", "pid": pid, "group": pid, "uid": 0, **origin})
        peer = Peer(self, b"\x00%04d" % self._addresses, known)
        self.peers[peer.address] = peer
        return peer

    def plugin(self, name: str, **register: Any) -> Peer:
        """A registered plugin."""
        return self.connect().register(name=name, **register)

    def client(self, name: str = "client", **register: Any) -> Peer:
        """A registered client."""
        return self.connect().register(name=name, role="client", **register)

    def local(self, name: str = "broker") -> Peer:
        """A registered peer of the broker's own process."""
        return self.connect(transport="local", pid=0, group=0).register(name=name, role="client", token=None)

    def managed(self, name: str, token: str, pid: int, **register: Any) -> Peer:
        """A plugin that the broker has started, and that was expected."""
        self.router.admission.expect(token, name, pid)
        return self.connect(pid=pid, group=pid).register(name=name, token=token, **register)

    def advance(self, seconds: float) -> None:
        """Move the clock, and do what is due then."""
        self.now += seconds
        self.router.tick(self.now)
        self.deliver()

    def deliver(self) -> None:
        """Carry what the router has said to the peers that read, as the edge does at the end of a turn."""
        dirty = list(self.router.dirty)
        self.router.dirty.clear()
        for outbox in dirty:
            outbox.listed = False
            peer = self.peers[outbox.peer]
            while (frame := outbox.take()) is not None:
                peer.hear(frame)
        strays, self.router.strays = self.router.strays, []
        for address, frame in strays:
            self.peers[address].hear(frame)

    def notices(self, kind: type[N]) -> list[N]:
        """Take all notices, and return those of one kind."""
        taken, self.router.notices = self.router.notices, []
        return [notice for notice in taken if isinstance(notice, kind)]

    def counters(self) -> dict[str, int]:
        """The counters of a snapshot taken now."""
        return self.router.snapshot(self.now).counters


class Peer:
    """One connection to the router, with the packets that have come and were not looked at yet."""

    def __init__(self, mesh: Mesh, address: bytes, origin: Origin) -> None:
        self.mesh = mesh
        self.address = address
        self.origin = origin
        self.number = 0
        self.inbox: deque[Any] = deque()
        self.frames = 0
        self._refs = 0

    def send(self, *packets: Any, number: int | None = None) -> None:
        """Send one frame, under this peer's session number unless another is given."""
        self.send_raw(encode_frame(self.number if number is None else number, packets))

    def send_raw(self, frame: bytes) -> None:
        """Send bytes, whatever they are."""
        self.mesh.router.receive(self.address, frame, self.mesh.now, self.origin)
        self.mesh.deliver()

    def hear(self, frame: bytes) -> None:
        """Take a frame from the router."""
        number, packets = decode_frame(frame, Limits(frame_bytes=2**30))
        assert number in (0, self.number) or isinstance(packets[0], p.Registered), "a frame of somebody else"
        self.frames += 1
        self.inbox.extend(packets)

    def take(self) -> list[Any]:
        """Everything that has come since the last look."""
        taken = list(self.inbox)
        self.inbox.clear()
        return taken

    def only(self, kind: type[T]) -> T:
        """The one packet that has come, which must be of this kind."""
        taken = self.take()
        assert len(taken) == 1, taken
        assert isinstance(taken[0], kind), taken[0]
        return taken[0]

    def all_of(self, kind: type[T]) -> list[T]:
        """Take everything, and return what is of this kind."""
        return [packet for packet in self.take() if isinstance(packet, kind)]

    def hello(self, **changes: Any) -> p.Register:
        """A REGISTER as this peer would send it, with changes."""
        fields: dict[str, Any] = {
            "versions": [1],
            "role": "plugin",
            "name": "some",
            "version": "1.0.0",
            "instance": "",
            "nonce": f"nonce of {self.address!r}",
            "token": OPERATOR_KEY,
            **changes,
        }
        return p.Register(**fields)

    def ask(self, **changes: Any) -> Any:
        """Try to register; returns the answer, REGISTERED or REFUSED."""
        self.send(self.hello(**changes), number=0)
        answer = self.take()[-1]
        if isinstance(answer, p.Registered):
            self.number = answer.session
        return answer

    def register(self, **changes: Any) -> Peer:
        """Register, which must succeed."""
        answer = self.ask(**changes)
        assert isinstance(answer, p.Registered), answer
        return self

    def ref(self) -> int:
        """A ref that this peer has not used yet."""
        self._refs += 1
        return self._refs

    def subscribe(self, pattern: str, group: str | None = None, **options: Any) -> int:
        """Subscribe, which must be acknowledged; what else has come stays in the inbox."""
        return self._acknowledged(p.Subscribe(self.ref(), pattern, group, options))

    def serve(self, service: str, **options: Any) -> int:
        """Offer a service, which must be acknowledged."""
        return self._acknowledged(p.Serve(self.ref(), service, options))

    def withdraw(self, service: str) -> int:
        """Withdraw a service, which must be acknowledged."""
        return self._acknowledged(p.Withdraw(self.ref(), service))

    def unsubscribe(self, subscription: int) -> int:
        """End a subscription, which must be acknowledged."""
        return self._acknowledged(p.Unsubscribe(self.ref(), subscription))

    def publish(self, subject: str, content: bytes = b"", *, retain: bool = False) -> None:
        """Publish one event in a frame of its own."""
        self.send(p.Publish(p.RETAIN if retain else 0, subject, payload(content)))

    def grant(self, amount: int, stream: int = 0) -> None:
        """Give the router credit."""
        self.send(p.Credit(stream, amount))

    def spend_credit(self, left: int = 0) -> None:
        """Set the credit that this peer has given to exactly `left` bytes."""
        self.session.outbox.credit = left

    def call(self, service: str, content: bytes = b"", *, timeout: float = 5.0, **options: Any) -> int:
        """Begin a request; `timeout` in seconds."""
        ref = self.ref()
        self.send(p.Call(ref, service, payload(content), round(timeout * 1000), options or None))
        return ref

    def requests(self) -> list[p.Request]:
        """Take everything, and return the requests."""
        return self.all_of(p.Request)

    def reply(self, request: p.Request, content: bytes = b"") -> None:
        """Answer a request."""
        self.send(p.Reply(request.request, payload(content)))

    def events(self) -> list[tuple[list[int], str, bytes]]:
        """Take everything, and return subscriptions, subject and body of the events."""
        return [(event.subscriptions, event.subject, body(event)) for event in self.all_of(p.Event)]

    def bodies(self) -> list[bytes]:
        """Take everything, and return the bodies of the events."""
        return [content for _, _, content in self.events()]

    def leave(self) -> None:
        """Close the session in good order."""
        self.send(p.Goodbye("done"))

    def vanish(self) -> None:
        """The transport loses this peer."""
        self.mesh.router.peer_lost(self.address, self.mesh.now)
        self.mesh.deliver()

    def is_registered(self) -> bool:
        """Whether the router knows this session."""
        return self.mesh.router.session(self.number) is not None

    @property
    def session(self) -> Session:
        """The router's own record of this peer."""
        session = self.mesh.router.session(self.number)
        assert session is not None, "this peer is not registered"
        return session

    def _acknowledged(self, packet: Any) -> int:
        before = len(self.inbox)
        self.send(packet)
        assert p.Ok(packet.ref) in self.inbox, list(self.inbox)[before:]
        self.inbox.remove(p.Ok(packet.ref))
        return cast("int", packet.ref)
