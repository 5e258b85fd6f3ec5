"""Whatever callers and callees do, and whenever they die, each request ends exactly once and leaves nothing behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.sessions import Instance, Pending
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.deadlines import RESOLUTION
from plugin_sdk.wire.limits import Limits
from tests.core_driver import Mesh, Peer, body, payload

LIMITS = Limits(pending_requests=6, queued_requests=4, backlog_bytes=300, chunk_credit=2)
SERVICES = ("work.x", "work.y")

picks = st.integers(0, 11)
T = TypeVar("T")


def pick(items: list[T], number: int) -> T:
    """One of them."""
    return items[number % len(items)]


@dataclass(eq=False)
class Call:
    """What the model knows of one request of one caller."""

    caller: Peer
    ref: int
    deadline: float
    outcomes: list[str] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)


class Endings(RuleBasedStateMachine):
    """Callers that call, cancel and die; callees that answer, stream, stall, withdraw and die; time that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh = Mesh(LIMITS, heartbeat=1e9)
        self.alive: list[Peer] = []
        self.calls: list[Call] = []
        self.in_hand: dict[tuple[Peer, int], int] = {}
        self.kept: dict[Instance, int] = {}  # what ran already when it was served
        self.seen: set[int] = set()
        self.late = 0
        self.names = 0

    @initialize()
    def begin(self) -> None:
        for _ in range(3):
            self.join()
        for who in range(2):
            self.serve(who, "work.x", 2)

    @precondition(lambda self: len(self.alive) < 6)
    @rule()
    def join(self) -> None:
        self.names += 1
        self.alive.append(self.mesh.plugin("work", instance=f"i{self.names}"))

    @rule(who=picks, service=st.sampled_from(SERVICES), concurrency=st.integers(1, 3))
    def serve(self, who: int, service: str, concurrency: int) -> None:
        peer = pick(self.alive, who)
        if service not in peer.session.instances:
            peer.serve(service, concurrency=concurrency)
            instance = peer.session.instances[service]
            self.kept[instance] = instance.outstanding
        self.listen()

    @rule(who=picks, service=st.sampled_from(SERVICES))
    def withdraw(self, who: int, service: str) -> None:
        peer = pick(self.alive, who)
        if service in peer.session.instances:
            peer.withdraw(service)
        self.listen()

    @rule(
        who=picks,
        service=st.sampled_from(("work.x", "work.x", "work.y")),
        timeout=st.sampled_from((0.5, 3.0, 9.0)),
        wait=st.sampled_from((0, 0, 20, 400, 9000)),
        size=st.sampled_from((0, 0, 200)),
        stream=st.sampled_from((True, True, False)),
        count=st.integers(1, 4),
    )
    def call(self, who: int, service: str, timeout: float, wait: int, size: int, stream: bool, count: int) -> None:
        peer = pick(self.alive, who)
        for _ in range(count):
            ref = peer.ref()
            self.calls.append(Call(peer, ref, self.mesh.now + timeout))
            options = {"wait_ready_ms": wait, "stream": stream}
            peer.send(p.Call(ref, service, payload(b"x" * size), round(timeout * 1000), options))
        self.listen()

    @precondition(lambda self: self.in_hand)
    @rule(which=picks, well=st.booleans(), twice=st.booleans())
    def answer(self, which: int, well: bool, twice: bool) -> None:
        peer, request = pick(list(self.in_hand), which)
        del self.in_hand[peer, request]
        for _ in range(1 + twice):
            peer.send(p.Reply(request, payload()) if well else p.Error(request, "failed", "no"))
            self.listen()
        self.late += twice

    @precondition(lambda self: self.in_hand)
    @rule(which=picks, count=st.integers(1, 3))
    def stream(self, which: int, count: int) -> None:
        """Send chunks, whether the credit for them is there or not."""
        (peer, request), begun = pick(list(self.in_hand.items()), which)
        for number in range(begun, begun + count):
            if (peer, request) in self.in_hand:
                self.in_hand[peer, request] += 1
            else:
                self.late += 1
            peer.send(p.Chunk(request, payload(b"%d" % number)))
            self.listen()

    @precondition(lambda self: self.in_hand)
    @rule(who=picks, which=picks)
    def forge(self, who: int, which: int) -> None:
        """Answer a request that somebody else has in hand."""
        peer, (holder, request) = pick(self.alive, who), pick(list(self.in_hand), which)
        if peer is not holder:
            peer.send(p.Reply(request, payload(b"forged")))
            self.late += 1
        self.listen()

    @precondition(lambda self: self.open_calls())
    @rule(which=picks)
    def cancel(self, which: int) -> None:
        call = pick(self.open_calls(), which)
        call.caller.send(p.Cancel(call.ref))
        self.listen()
        assert call.outcomes == ["cancelled"]

    @precondition(lambda self: self.open_calls())
    @rule(which=picks, amount=st.integers(0, 3))
    def give_chunk_credit(self, which: int, amount: int) -> None:
        call = pick(self.open_calls(), which)
        call.caller.grant(amount, stream=call.ref)
        self.listen()

    @precondition(lambda self: len(self.alive) > 2)
    @rule(who=picks, orderly=st.booleans())
    def go(self, who: int, orderly: bool) -> None:
        peer = pick(self.alive, who)
        left_alone = [self.call_of(pending) for pending in peer.session.serving.values()]
        if orderly:
            peer.leave()
        else:
            peer.vanish()
        self.alive.remove(peer)
        self.in_hand = {key: chunks for key, chunks in self.in_hand.items() if key[0] is not peer}
        self.listen()
        assert all(call.outcomes == ["lost"] for call in left_alone if call.caller is not peer)

    @rule(seconds=st.sampled_from((0.01, 0.1, 1.0)))
    def pass_time(self, seconds: float) -> None:
        self.mesh.advance(seconds)
        self.listen()

    @precondition(lambda self: self.open_calls())
    @rule()
    def pass_time_until_something_is_due(self) -> None:
        due = self.mesh.router.requests.next_deadline()
        assert due is not None
        self.mesh.advance(max(0.0, due - self.mesh.now))
        self.listen()

    def listen(self) -> None:
        """Let every peer look at what has come: as a callee, and as a caller."""
        for peer in self.alive:
            for packet in peer.take():
                self.hear(peer, packet)

    def hear(self, peer: Peer, packet: object) -> None:
        if isinstance(packet, p.Request):
            assert packet.request not in self.seen, "one request was given out twice"
            self.seen.add(packet.request)
            self.in_hand[peer, packet.request] = 0
        elif isinstance(packet, p.Cancel):
            del self.in_hand[peer, packet.ref]
        elif isinstance(packet, p.Credit):
            assert (peer, packet.stream) in self.in_hand
        else:
            assert isinstance(packet, (p.Reply, p.Error, p.Chunk)), packet
            (call,) = [each for each in self.calls if each.caller is peer and each.ref == packet.ref]
            assert not call.outcomes, "something came after the outcome"
            if isinstance(packet, p.Chunk):
                call.chunks.append(int(body(packet)))
                assert call.chunks == list(range(len(call.chunks)))
            else:
                call.outcomes.append(packet.code if isinstance(packet, p.Error) else "reply")
                assert isinstance(packet, p.Error) or body(packet) != b"forged"

    @invariant()
    def the_router_knows_exactly_the_requests_that_have_not_ended(self) -> None:
        for peer in self.alive:
            assert set(peer.session.calls) == {call.ref for call in self.open_calls() if call.caller is peer}
        assert len(self.mesh.router.requests) == len(self.open_calls())

    @invariant()
    def each_callee_has_in_hand_what_the_router_thinks(self) -> None:
        for peer in self.alive:
            assert set(peer.session.serving) == {request for holder, request in self.in_hand if holder is peer}

    @invariant()
    def outstanding_requests_add_up_and_keep_their_limits(self) -> None:
        for peer in self.alive:
            served = list(peer.session.serving.values())
            for instance in peer.session.instances.values():
                assert instance.outstanding == sum(pending.instance is instance for pending in served)
                # What ran when it was served again, with less room, goes on.
                kept = self.kept[instance] = min(self.kept.get(instance, 0), instance.outstanding)
                assert 0 <= instance.outstanding <= max(instance.limit, kept)

    @invariant()
    def nobody_waits_while_an_instance_has_room(self) -> None:
        for service in self.mesh.router.requests.services:
            assert service.waiting or service.instances
            assert len(service.waiting) <= LIMITS.queued_requests
            if service.waiting:
                assert all(instance.outstanding >= instance.limit for instance in service.instances)

    @invariant()
    def what_waits_is_filed_and_its_bytes_are_counted(self) -> None:
        filed = {id(each) for service in self.mesh.router.requests.services for each in service.waiting.values()}
        waiting = [pending for pending in self.pending() if pending.instance is None]
        assert filed == {id(pending) for pending in waiting}
        for peer in self.alive:
            assert peer.session.held == sum(len(each.payload) for each in waiting if each.caller is peer.session)

    @invariant()
    def nothing_outlives_its_deadline(self) -> None:
        due = self.mesh.router.requests.next_deadline()
        for call in self.open_calls():
            assert call.deadline + RESOLUTION + 1e-6 >= self.mesh.now
            assert due is not None
            assert due <= call.deadline + RESOLUTION + 1e-6

    @invariant()
    def late_answers_are_counted(self) -> None:
        assert self.mesh.counters()["late_replies"] == self.late

    def open_calls(self) -> list[Call]:
        return [call for call in self.calls if not call.outcomes and call.caller in self.alive]

    def call_of(self, pending: Pending) -> Call:
        caller, ref = self.mesh.peers[pending.caller.peer], pending.ref
        (call,) = [call for call in self.calls if call.caller is caller and call.ref == ref]
        return call

    def pending(self) -> list[Pending]:
        return [pending for peer in self.alive for pending in peer.session.calls.values()]

    def teardown(self) -> None:
        """In the end every request of a living caller has one outcome, and nothing is left of any."""
        self.mesh.advance(10)
        self.listen()
        assert all(len(call.outcomes) == 1 for call in self.calls if call.caller in self.alive)
        assert not self.in_hand
        assert len(self.mesh.router.requests) == 0
        for peer in self.alive:
            peer.leave()
        requests = self.mesh.router.requests
        assert list(requests.services) == []
        assert requests.next_deadline() is None
        counts = sum(requests.outcomes.values())
        refused = sum(call.outcomes == ["limit"] for call in self.calls)
        assert len(self.calls) - refused <= counts <= len(self.calls)


# Hypothesis takes up to five minutes to find the smallest of the failures it has met.
TestEndings = pytest.mark.timeout(400)(Endings.TestCase)
TestEndings.settings = settings(
    max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
