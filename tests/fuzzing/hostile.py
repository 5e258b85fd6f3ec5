"""Whatever two hostile peers say, two others publish, receive, call and answer as if they were alone.

Each event reaches the others once and in order, each call gets its own answer, and nobody is told anything that was not
meant for him. What waits at the broker stays within its bound. When all have gone, nothing of them is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Raw

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode, encode_payload, join_frame
from plugin_sdk.wire.limits import EVENT_OVERHEAD, Limits
from tests.core_driver import Mesh, Peer, payload
from tests.fuzzing.feed import Feed, chunk
from tests.fuzzing.vectors import frames

LIMITS = Limits(
    frame_bytes=4_096,
    packets_per_frame=50,
    event_credit=2_000,
    publish_credit=2_000,
    backlog_bytes=3_000,
    backlog_events=20,
    chunk_credit=2,
    pending_requests=6,
    queued_requests=2,
    subscriptions=6,
    services=4,
    retained_subjects=3,
    retained_bytes=300,
    cached_subjects=4,
    # Three times what one frame of a villain can make wait for somebody who reads between any two of them.
    total_bytes=24_000,
    timeout_ms=10_000,
)
MOST_STEPS = 30

# Few of each, so that packets often meet what earlier ones have made.
_SUBJECTS = ("a", "a.b", "quiet.a", "evil.x", "other.x", "calm.z", "$a", "$broker.status", "a b", "")
_PATTERNS = ("a", "a.*", ">", "quiet.*", "*.b", "$a.>", "a.>.b", "*")
_GROUPS = (None, None, "g", "h", "")
_AMOUNTS = (1, 100, 2_000, 0, 2**63 - 1)
_BODIES = (b"", b"x", b"x" * 200, b"x" * 1_900)
_TIMEOUTS_MS = (50, 5_000, 0, 2**63 - 1)
_TIMES = (0.0, 0.01, 0.3, 3.0, 20.0)
_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"overflow": "drop_oldest", "max_pending": 1},
    {"overflow": "drop_newest"},
    {"overflow": "disconnect", "max_pending": 2},
    {"overflow": "block", "max_pending": 3, "last": True},
    {"last": True},
    {"concurrency": 1, "caller": True},
    {"wait_ready_ms": 5_000},
    {"stream": True},
    {"to": 1, "caller": {"name": "broker"}},
    {"overflow": "explode", "max_pending": -1, "concurrency": 0, "wait_ready_ms": -1},
)


def check(data: bytes) -> None:
    """Raise AssertionError, or anything else, when the bytes break the invariant."""
    mesh = Mesh(LIMITS)
    villains = [Villain(mesh, "evil"), Villain(mesh, "other")]
    victims = Victims(mesh)
    feed = Feed(data)
    for _ in range(MOST_STEPS):
        if not feed:
            break
        feed.choose(villains).act(feed)
        assert mesh.router.backlog.size <= LIMITS.total_bytes, "more waits at the broker than there is room for"
        victims.live()
    for villain in villains:
        villain.peer.vanish()
    victims.be_left_alone()
    _leave(mesh)


def seeds() -> Iterator[bytes]:
    """The frames of the vectors, and short stories."""
    for frame in frames("good", "bad"):
        yield bytes((0, _ACTS.index(Villain.say_bytes))) + chunk(frame)
    evil, other = b"\0", b"\1"
    wait, vanish = _act(Villain.wait, 2), _act(Villain.vanish)
    serve, call = _say("serve", 1, 3, 0), _say("call", 1, 3, 1, 1, 0)
    flood = _act(Villain.publish_much, 2, 2, 15)
    for options in range(len(_OPTIONS)):
        # Whoever reads nothing is subscribed to what the others say.
        yield evil + _say("subscribe", 1, 3, 0, options) + (other + flood) * 4 + evil + vanish
        yield (evil + _say("subscribe", 1, 2, 2, options) + other + flood) * 3 + evil + _say("unsubscribe", 2, 1) + wait
        yield evil + _say("serve", 1, 3, options) + other + _say("call", 1, 3, 2, 1, options) * 4 + evil + vanish
    yield evil + serve + other + call + evil + _say("reply", 0, 1) + other + _say("cancel", 1) + evil + vanish
    yield evil + serve + other + call + evil + _say("chunk", 0, 1) * 3 + _say("withdraw", 1, 3) + other + vanish
    for act in _ACTS:
        yield (evil + _act(act, 1, 1, 1, 1, 1, 1)) * 4 + (other + _act(act, 7, 3, 2, 1)) * 4


def _act(act: Act, *choices: int) -> bytes:
    return bytes((_ACTS.index(act), *choices))


def _say(kind: str, *choices: int) -> bytes:
    return _act(Villain.say, 0, _KINDS.index(kind), *choices)


class Villain:
    """A peer that may say anything. It comes back when it was thrown out.

    Args:
        mesh: where.
        name: its plugin name.
    """

    def __init__(self, mesh: Mesh, name: str) -> None:
        self._mesh = mesh
        self._name = name
        self.peer = mesh.plugin(name)
        self.requests = [0]

    def act(self, feed: Feed) -> None:
        """Do one thing."""
        if not self.peer.is_registered():
            self.peer = self._mesh.connect()
            self.peer.register(name=self._name, nonce=f"{self._name} {self.peer.address!r}")
        feed.choose(_ACTS)(self, feed)
        heard = self.peer.take()
        self.requests += [packet.request for packet in heard if type(packet) is p.Request]
        del self.requests[:-3]

    def say(self, feed: Feed) -> None:
        """A frame of packets that each make some sense."""
        packets = [_packet(self, feed) for _ in range(1 + feed.byte() % 6)]
        self.peer.send(*packets)

    def publish_much(self, feed: Feed) -> None:
        """A burst on one subject."""
        subject, payload = feed.choose(_SUBJECTS), _payload(feed)
        self.peer.send(*[p.Publish(feed.byte() & 1, subject, payload)] * (feed.byte() % 40))

    def wait(self, feed: Feed) -> None:
        """Time passes."""
        self._mesh.advance(feed.choose(_TIMES))

    def vanish(self, feed: Feed) -> None:
        """The connection is lost."""
        self.peer.vanish()

    def clog(self, feed: Feed) -> None:
        """Its transport takes nothing for a moment."""
        outbox = self.peer.session.outbox
        number = 20 * feed.byte()
        outbox.put_back(join_frame(outbox.number, [encode(p.Pong(0))] * number, number))
        self._mesh.router.hold_back(outbox, self._mesh.now)

    def forge(self, feed: Feed) -> None:
        """A frame under another number, such as a victim's."""
        numbers = [each.number for each in self._mesh.router.snapshot(self._mesh.now).sessions] + [0, 1, 2**64 - 1]
        self.peer.send(_packet(self, feed), number=feed.choose(numbers))

    def say_packets(self, feed: Feed) -> None:
        """Any bytes in the place of packets."""
        pieces = [feed.chunk() for _ in range(feed.byte() % 3)]
        self.peer.send_raw(join_frame(encode(self.peer.number), pieces, len(pieces)))

    def say_bytes(self, feed: Feed) -> None:
        """Any bytes at all."""
        self.peer.send_raw(feed.chunk())


Act = Callable[[Villain, Feed], None]
_ACTS: Sequence[Act] = (
    Villain.say,
    Villain.say,
    Villain.publish_much,
    Villain.wait,
    Villain.vanish,
    Villain.clog,
    Villain.forge,
    Villain.say_packets,
    Villain.say_bytes,
)


def _ref(feed: Feed) -> int:
    return feed.byte() % 6


def _payload(feed: Feed) -> Raw:
    return Raw(encode_payload(feed.choose(_BODIES)))


def _request(villain: Villain, feed: Feed) -> int:
    return feed.choose([*villain.requests, 1, 2])


_PACKETS: dict[str, Callable[[Villain, Feed], Any]] = {
    "subscribe": lambda _, feed: p.Subscribe(
        _ref(feed), feed.choose(_PATTERNS), feed.choose(_GROUPS), feed.choose(_OPTIONS)
    ),
    "unsubscribe": lambda _, feed: p.Unsubscribe(_ref(feed), _ref(feed)),
    "publish": lambda _, feed: p.Publish(feed.byte() & 3, feed.choose(_SUBJECTS), _payload(feed)),
    "credit": lambda _, feed: p.Credit(_ref(feed) * (feed.byte() & 1), feed.choose(_AMOUNTS)),
    "serve": lambda _, feed: p.Serve(_ref(feed), feed.choose(_SUBJECTS), feed.choose(_OPTIONS)),
    "withdraw": lambda _, feed: p.Withdraw(_ref(feed), feed.choose(_SUBJECTS)),
    "call": lambda _, feed: p.Call(
        _ref(feed), feed.choose(_SUBJECTS), _payload(feed), feed.choose(_TIMEOUTS_MS), feed.choose(_OPTIONS)
    ),
    "reply": lambda villain, feed: p.Reply(_request(villain, feed), _payload(feed)),
    "chunk": lambda villain, feed: p.Chunk(_request(villain, feed), _payload(feed)),
    "error": lambda villain, feed: p.Error(_request(villain, feed), feed.choose(("failed", "x")), "text"),
    "cancel": lambda _, feed: p.Cancel(_ref(feed)),
    "ping": lambda _, feed: p.Ping(_ref(feed), {"x": 1}),
    "pong": lambda _, feed: p.Pong(_ref(feed)),
    "goodbye": lambda _, feed: p.Goodbye("done"),
}
_KINDS = list(_PACKETS)


def _packet(villain: Villain, feed: Feed) -> Any:
    return _PACKETS[feed.choose(_KINDS)](villain, feed)


class Victims:
    """A plugin that publishes and serves, and a client that reads and calls: they must notice nothing.

    Args:
        mesh: where.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._calm, self._reader = mesh.plugin("calm"), mesh.client("reader")
        self._calm.serve("calm.z")
        self._subscription = self._reader.subscribe("quiet.*")
        self._number = 0
        self._asked: set[int] = set()

    def live(self) -> None:
        """Publish and read, call and answer."""
        self._number += 1
        content = b"calm %d" % self._number
        self._calm.publish("quiet.z", content)
        assert self._read() == [payload(content)], f"event {self._number} did not arrive as it should"
        self._call(payload(content))
        if len(self._asked) < 3:
            ref = self._reader.ref()
            self._asked.add(ref)
            self._reader.send(p.Call(ref, "evil.x", payload(content), 9_000))

    def be_left_alone(self) -> None:
        """Once the villains have gone, nobody waits for them any more."""
        self._read()
        assert not self._asked, f"calls {self._asked} to a villain that has gone did not end"
        for victim in (self._calm, self._reader):
            outbox = victim.session.outbox
            assert outbox.allowance + outbox.consumed == LIMITS.publish_credit, "credit to publish is still withheld"
        assert self._reader.session.outbox.credit == LIMITS.event_credit

    def _read(self) -> list[Raw]:
        """Read everything there is; returns what came from the other victim."""
        found = []
        while events := self._heard(self._reader, p.Event, p.Ping, p.Credit):
            mine = [event for event in events if type(event) is p.Event]
            assert all(event.subscriptions == [self._subscription] for event in mine)
            found += [event.payload for event in mine if event.subject == "quiet.z"]
            self._reader.grant(sum(len(event.payload) + EVENT_OVERHEAD for event in mine))
        return found

    def _call(self, content: Raw) -> None:
        ref = self._reader.ref()
        self._reader.send(p.Call(ref, "calm.z", content, 5_000))
        requests = self._heard(self._calm, p.Request, p.Ping, p.Credit, p.Cancel)
        (number,) = [each.request for each in requests if type(each) is p.Request and each.payload == content]
        self._calm.send(p.Reply(number, content))
        answers = self._heard(self._reader, p.Reply, p.Event, p.Ping)
        assert [each for each in answers if type(each) is p.Reply] == [p.Reply(ref, content)]

    def _heard(self, victim: Peer, *expected: type[Any]) -> list[Any]:
        """What was said to a victim, without the outcomes of what it has asked a villain for."""
        heard = [packet for packet in victim.take() if not (victim is self._reader and self._ends(packet))]
        for packet in heard:
            assert type(packet) in expected, f"{packet} was said to somebody who did nothing"
        return heard

    def _ends(self, packet: Any) -> bool:
        if type(packet) not in (p.Reply, p.Error) or packet.ref not in self._asked:
            return False
        self._asked.remove(packet.ref)
        return True


def _leave(mesh: Mesh) -> None:
    for peer in mesh.peers.values():
        peer.vanish()
    router = mesh.router
    assert not router.snapshot(mesh.now).sessions
    assert len(router.requests) == 0, "requests are left"
    assert not list(router.requests.services), "services are left"
    assert router.events._tree._root.is_empty(), "subscriptions are left"
    assert not router.events._indebted, "debts are left"
    assert router.backlog.size == 0, f"{router.backlog.size} bytes still count as waiting"
    for _ in range(20):
        mesh.advance(1.0)
    assert router.next_deadline() is None, "something is still to be done"
