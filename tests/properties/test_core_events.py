"""Conservation of events: each is delivered once and in order, or counted as dropped, or still waits; so is credit."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw

from broker.core.flow import BLOCK, POLICIES, Lane, Subscription
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_payload
from plugin_sdk.wire.limits import EVENT_OVERHEAD, Limits
from plugin_sdk.wire.subjects import matches
from tests.core_driver import Mesh, Peer, payload

WINDOW = 900
LIMITS = Limits(
    event_credit=WINDOW,
    publish_credit=WINDOW,
    backlog_bytes=600,
    backlog_events=6,
    frame_bytes=4_000,
    cached_subjects=5,
)

subjects = st.sampled_from(("a", "a.b", "a.c"))
patterns = st.sampled_from((">", "a.*", "*.b", "a", "a.b"))


picks = st.integers(0, 11)
T = TypeVar("T")


def pick(items: list[T], number: int) -> T:
    """One of them."""
    return items[number % len(items)]


@dataclass(eq=False)
class Interest:
    """What the model knows of one subscription."""

    peer: Peer
    id: int
    pattern: str
    group: str | None
    lane: tuple[str, int]
    record: Subscription
    due: list[int] = field(default_factory=list)
    got: list[int] = field(default_factory=list)
    active: bool = True

    def waiting(self) -> list[int]:
        """The numbers of the events that wait for it in the router."""
        events = (event for event in self.record.lane.waiting if self.record in event.target.subscriptions)
        return [number_of(event.payload) for event in events]


def number_of(content: bytes | Raw) -> int:
    """The number at the start of an event's body."""
    return int(decode_payload(content)[1].split(b" ")[0])


class Conservation(RuleBasedStateMachine):
    """Peers that come, subscribe, publish within their credit, grant credit, and go; after each step all adds up."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh = Mesh(LIMITS)
        self.alive: list[Peer] = []
        self.allowance: dict[Peer, int] = {}
        self.known: list[Interest] = []
        self.group_got: defaultdict[tuple[str, int], list[Interest]] = defaultdict(list)
        self.candidates: dict[tuple[str, int], set[Interest]] = {}
        self.published = 0
        self.copies = 0
        self.received = 0

    @initialize(stuck=st.booleans(), bound=st.sampled_from((1, 2, 6)))
    def begin(self, stuck: bool, bound: int) -> None:
        self.join(stuck)
        for _ in range(2):
            self.join(stuck=False)
        self.subscribe(0, ">", None, BLOCK, bound)

    @precondition(lambda self: len(self.alive) < 6)
    @rule(stuck=st.booleans())
    def join(self, stuck: bool) -> None:
        peer = self.mesh.client()
        if stuck:
            peer.spend_credit()
        self.alive.append(peer)
        self.allowance[peer] = WINDOW

    @rule(
        who=picks,
        pattern=patterns,
        group=st.sampled_from((None, None, "g", "h")),
        policy=st.sampled_from((BLOCK, BLOCK, *POLICIES)),
        bound=st.sampled_from((1, 2, 6)),
    )
    def subscribe(self, who: int, pattern: str, group: str | None, policy: str, bound: int) -> None:
        peer = pick(self.alive, who)
        ref = peer.ref()
        peer.send(p.Subscribe(ref, pattern, group, {"overflow": policy, "max_pending": bound}))
        answer = peer.inbox.pop()
        if isinstance(answer, p.Error):
            # Only a peer that ends subscriptions without reading what waits for them is told so.
            assert (answer.ref, answer.code) == (ref, "limit")
            assert peer.session.lanes[policy, bound].overrun
            return
        assert answer == p.Ok(ref)
        self.known.append(Interest(peer, ref, pattern, group, (policy, bound), peer.session.subscriptions[ref]))

    @precondition(lambda self: self.active())
    @rule(which=picks)
    def unsubscribe(self, which: int) -> None:
        interest = pick(self.active(), which)
        interest.peer.unsubscribe(interest.id)
        interest.active = False
        self.listen()

    @rule(who=picks, subject=subjects, size=st.sampled_from((0, 10, 200)))
    def publish(self, who: int, subject: str, size: int) -> None:
        self.publish_some(who, subject, size, 1)

    @rule(who=picks, subject=subjects, count=st.integers(5, 15))
    def burst(self, who: int, subject: str, count: int) -> None:
        self.publish_some(who, subject, 0, count)

    def publish_some(self, who: int, subject: str, size: int, count: int) -> None:
        """Publish a few events in one frame, as far as this peer's own count of its credit allows."""
        peer = pick(self.alive, who)
        events: list[p.Publish] = []
        while len(events) < count and self.allowance[peer] > 0:
            content = payload(b"%d " % self.published + b"x" * size)
            self.allowance[peer] -= len(content) + EVENT_OVERHEAD
            self.expect(subject)
            events.append(p.Publish(0, subject, content))
        if events:
            peer.send(*events)
        self.listen()

    @rule(who=picks, amount=st.sampled_from((1, 80, 200, 600)))
    def grant(self, who: int, amount: int) -> None:
        pick(self.alive, who).grant(amount)
        self.listen()

    @rule(who=picks)
    def catch_up(self, who: int) -> None:
        """A reader that takes everything that waits for it."""
        peer = pick(self.alive, who)
        while peer.is_registered() and any(lane.waiting for lane in peer.session.lanes.values()):
            peer.grant(WINDOW)
        self.listen()

    @precondition(lambda self: len(self.alive) > 2)
    @rule(who=picks, orderly=st.booleans())
    def go(self, who: int, orderly: bool) -> None:
        peer = pick(self.alive, who)
        if orderly:
            peer.leave()
        else:
            peer.vanish()
        self.listen()

    def expect(self, subject: str) -> None:
        """Note for whom the next event is, and how many EVENT packets that makes."""
        lanes: set[tuple[Peer, tuple[str, int]]] = set()
        number, self.published = self.published, self.published + 1
        for interest in self.known:
            if not interest.active or interest.peer not in self.alive or not matches(interest.pattern, subject):
                continue
            if interest.group is None:
                interest.due.append(number)
                lanes.add((interest.peer, interest.lane))
            else:
                self.candidates.setdefault((interest.group, number), set()).add(interest)
        groups = sum(1 for group in ("g", "h") if (group, number) in self.candidates)
        self.copies += len(lanes) + groups

    def listen(self) -> None:
        """Let every peer look at what has come."""
        for peer in list(self.alive):
            for packet in peer.take():
                self.hear(peer, packet)
            if not peer.is_registered():
                self.alive.remove(peer)
        while len(self.alive) < 2:
            self.join(stuck=False)

    def hear(self, peer: Peer, packet: object) -> None:
        if isinstance(packet, p.Credit):
            self.allowance[peer] += packet.amount
        elif isinstance(packet, p.Event):
            self.received += 1
            number = number_of(packet.payload)
            for each in packet.subscriptions:
                (interest,) = [one for one in self.known if one.peer is peer and one.id == each]
                interest.got.append(number)
                if interest.group is not None:
                    self.group_got[interest.group, number].append(interest)
        else:
            assert isinstance(packet, p.Goodbye), packet
            assert packet.code == "slow_consumer"

    @invariant()
    def each_subscription_got_its_events_once_and_in_order(self) -> None:
        for interest in self.known:
            if interest.peer not in self.alive:
                continue
            sequence = interest.got + interest.waiting()
            assert sequence == sorted(set(sequence))
            if interest.group is None:
                assert set(sequence) <= set(interest.due)
                assert len(sequence) + interest.record.dropped == len(interest.due)
            if interest.lane[0] in (BLOCK, "disconnect"):
                assert interest.record.dropped == 0

    @invariant()
    def each_group_gives_an_event_to_one_member_that_covers_it(self) -> None:
        for key, members in self.group_got.items():
            assert len(members) == 1
            assert members[0] in self.candidates[key]

    @invariant()
    def every_event_is_somewhere(self) -> None:
        waiting = sum(len(lane.waiting) for lane in self.lanes())
        assert self.received + waiting + self.mesh.counters()["events_dropped"] == self.copies

    @invariant()
    def every_byte_of_credit_is_somewhere(self) -> None:
        debts = {id(debt): debt for lane in self.lanes() for debt in lane.debts}
        for peer in self.alive:
            outbox = peer.session.outbox
            owed = sum(debt.amount for debt in debts.values() if debt.publisher is outbox)
            assert outbox.allowance + outbox.consumed + owed == WINDOW
            assert outbox.allowance == self.allowance[peer]
            assert 0 <= outbox.consumed < WINDOW / 4

    @invariant()
    def a_publisher_is_made_to_wait_by_nothing_but_a_lagging_peer(self) -> None:
        for lane in self.lanes():
            assert not lane.debts or lane.lagging
            assert not lane.debts or (lane.policy == BLOCK and lane.users)
        waits = any(lane.debts for lane in self.lanes())
        assert waits or all(allowance > 0 for allowance in self.allowance_of_the_living())

    @invariant()
    def the_router_knows_which_lanes_withhold_credit(self) -> None:
        assert set(self.mesh.router.events._indebted) == {lane for lane in self.lanes() if lane.debts}

    @invariant()
    def lanes_keep_count_of_what_they_hold(self) -> None:
        for peer in self.alive:
            for lane in peer.session.lanes.values():
                assert lane.size == sum(event.cost for event in lane.waiting)
                assert lane.users == sum(each.lane is lane for each in peer.session.subscriptions.values())
                assert lane.users or lane.waiting
                assert not lane.waiting or peer.session.outbox.credit <= 0
                if lane.policy != BLOCK:
                    assert len(lane.waiting) <= lane.max_events

    def active(self) -> list[Interest]:
        return [interest for interest in self.known if interest.active and interest.peer in self.alive]

    def lanes(self) -> list[Lane]:
        return [lane for peer in self.alive for lane in peer.session.lanes.values()]

    def allowance_of_the_living(self) -> list[int]:
        return [self.allowance[peer] for peer in self.alive]

    def teardown(self) -> None:
        """Once all readers read, all that waits arrives and all credit is free; once all are gone, nothing is left."""
        for _ in range(100):
            for peer in list(self.alive):
                if peer.is_registered():
                    peer.grant(WINDOW)
            self.listen()
        self.each_subscription_got_its_events_once_and_in_order()
        self.every_event_is_somewhere()
        self.every_byte_of_credit_is_somewhere()
        assert not any(lane.waiting for lane in self.lanes())
        assert not any(lane.debts for lane in self.lanes())
        for peer in list(self.alive):
            peer.leave()
        events = self.mesh.router.events
        assert events._tree._root.is_empty()
        assert not events._indebted
        assert not self.mesh.router.snapshot(self.mesh.now).sessions


# Hypothesis takes up to five minutes to find the smallest of the failures it has met.
TestConservation = pytest.mark.timeout(400)(Conservation.TestCase)
TestConservation.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
