"""Routing of events: who gets what, at what pace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, groupby, islice
from typing import Any

from msgspec import Raw

from broker.core.backlog import Backlog
from broker.core.flow import (
    BLOCK,
    DISCONNECT,
    MAX_LANES,
    POLICIES,
    Debt,
    Held,
    Lane,
    Subscription,
    Target,
    drain_in_order,
)
from broker.core.groups import Group, Turn
from broker.core.permissions import check_may_subscribe, missing
from broker.core.retained import Retained
from broker.core.sessions import Session
from broker.core.subjects import SubjectTree
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode, event_head
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import EVENT_OVERHEAD, FRAME_TARGET, Limits
from plugin_sdk.wire.outbox import Outbox
from plugin_sdk.wire.subjects import check_name, check_pattern, check_subject, is_reserved

SHORTEST_BURST = 4  # below that, looking for a burst costs what it saves
LARGEST_BURST = 4 * FRAME_TARGET  # bytes; it becomes one frame, whatever the heads add to it
# On average, of those that are remembered: a few hundred bytes each, so that many who listen to all must count, too.
TARGETS_PER_SUBJECT = 8
IDS_PER_EVENT = 64  # credit does not count the ids in a head, so they must not outweigh what it counts


class Route:
    """The verdict on one subject, kept until a subscription changes.

    `plain`: nothing has to be decided event by event. Two targets behind one outbox would spend its credit twice.
    """

    __slots__ = ("groups", "plain", "reserved", "targets")

    def __init__(self, targets: list[Target], groups: list[Group], reserved: bool) -> None:
        self.targets = targets
        self.groups = groups
        self.reserved = reserved
        self.plain = not (groups or reserved) and len({target.outbox for target in targets}) == len(targets)


class Events:
    """Subscriptions, and the path of an event from publisher to subscribers."""

    def __init__(self, limits: Limits, backlog: Backlog, seed: int = 0) -> None:
        self._limits = limits
        self._backlog = backlog
        self._seed = seed
        self._tree: SubjectTree[Subscription] = SubjectTree()
        self._routes: dict[str, Route] = {}
        self._remembered = 0  # subscriptions that these lead to
        self._turns: dict[str, Turn] = {}
        self.retained = Retained(limits.retained_subjects, limits.retained_bytes)
        self.slow: dict[Outbox, str] = {}
        self.dropped = 0
        self.strained: dict[Lane, None] = {}
        self._indebted: dict[Lane, None] = {}
        self._arrivals = count()

    def subscribe(self, session: Session, packet: p.Subscribe) -> None:
        """Put a subscription into force and acknowledge it; raises BusError when it is refused."""
        check_pattern(packet.pattern)
        if packet.group is not None:
            check_name(packet.group)
        check_may_subscribe(session, packet.pattern)
        if packet.ref in session.subscriptions:
            raise BusError("bad_packet", f"subscription {packet.ref} exists already in this session")
        if len(session.subscriptions) >= self._limits.subscriptions:
            raise BusError("limit", f"this session has {self._limits.subscriptions} subscriptions, the most allowed")
        last = packet.options.get("last") is True
        lane = self._lane(session, packet.options)
        if lane.overrun or (last and lane.full):
            raise BusError("limit", "too many events wait for this session already: read them, then subscribe")
        lane.users += 1
        subscription = Subscription(packet.ref, packet.pattern, packet.group, lane, last=last)
        session.subscriptions[packet.ref] = subscription
        session.outbox.add(encode(p.Ok(packet.ref)))
        if session.routed:
            self._enter(subscription)

    def unsubscribe(self, session: Session, packet: p.Unsubscribe) -> list[Outbox]:
        """End a subscription; what already waits for its peer is still sent.

        Returns:
            Publishers that have credit again.
        """
        subscription = session.subscriptions.pop(packet.subscription, None)
        if subscription is None:
            raise BusError("bad_packet", f"there is no subscription {packet.subscription} in this session")
        self._tree.remove(subscription.pattern, subscription)
        self._routes.clear()
        session.losses.events += subscription.dropped
        subscription.heir = session.losses
        session.outbox.add(encode(p.Ok(packet.ref)))
        subscription.lane.users -= 1
        return [] if subscription.lane.users else self._retire(session, subscription.lane)

    def enter(self, session: Session) -> None:
        """Put what a session has subscribed to into force."""
        for subscription in session.subscriptions.values():
            self._enter(subscription)

    def leave(self, session: Session) -> None:
        """Hand nothing more to a session; what already waits for its peer is still sent."""
        for subscription in session.subscriptions.values():
            self._tree.remove(subscription.pattern, subscription)
        self._routes.clear()

    def listening(self, subject: str) -> set[bytes]:
        """The peers whose subscriptions cover a subject."""
        return {subscription.lane.outbox.peer for subscription in self._tree.match(subject)}

    def forget(self, session: Session) -> list[Outbox]:
        """Remove everything of a lost session; returns publishers that have credit again."""
        for subscription in session.subscriptions.values():
            self._tree.remove(subscription.pattern, subscription)
        if session.subscriptions:
            self._routes.clear()
        session.subscriptions.clear()
        paid: list[Outbox] = []
        for lane in session.lanes.values():
            paid += self._forgive(lane)
            self.dropped += lane.empty()
        session.lanes.clear()
        for lane in list(self._indebted):
            lane.disown(session.outbox)
            if not lane.debts:
                del self._indebted[lane]
            if lane.overrun:
                self.slow[lane.outbox] = "it does not read its events, and those who published them did not stay"
        return paid

    def burst(self, session: Session, packets: list[Any], begin: int) -> int:
        """Publish the packet at `begin` and those behind it on the same subject; returns how many that were.

        A publisher in a loop fills whole frames with one subject: its verdict is looked up once, and its payloads are
        appended to each outbox in one step. Anything out of the ordinary goes the way of single events.

        Raises:
            BusError: the packet at `begin` is refused; none was published.
        """
        first: p.Publish = packets[begin]
        subject = first.subject
        if session.may_publish is not None and not session.may_publish[subject]:
            raise missing(session, "event_bus: publish", subject)
        route = self._routes.get(subject)
        if route is None or not route.plain or first.flags:
            self.publish(session, first)
            return 1
        payloads: list[Raw] = []
        for packet in islice(packets, begin, None):
            if type(packet) is not p.Publish or packet.subject != subject or packet.flags:
                break
            payloads.append(packet.payload)
        number = len(payloads)
        total = sum(map(len, payloads)) + number * EVENT_OVERHEAD
        if number < SHORTEST_BURST or total > LARGEST_BURST or not all(each.takes(total) for each in route.targets):
            for packet in packets[begin : begin + number]:
                self.publish(session, packet)
            return number
        session.outbox.allowance -= total
        session.outbox.consumed += total
        session.published += number
        for target in route.targets:
            target.outbox.credit -= total
            target.outbox.add_all(target.head, payloads, total)
        lagging = [target.lane for target in route.targets if target.outbox.credit < target.lane.mark]
        if lagging:
            self._owe(session.outbox, lagging, total)
        return number

    def publish(self, session: Session, packet: p.Publish) -> None:
        """Hand one event to every subscriber it is for. The hot path: no allocation that can be avoided."""
        payload: Raw | bytes = packet.payload
        cost = len(payload) + EVENT_OVERHEAD
        session.outbox.allowance -= cost
        session.outbox.consumed += cost
        session.published += 1
        route = self._routes.get(packet.subject)
        if route is None:
            route = self._resolve(packet.subject)
        if packet.flags or route.reserved:
            self._special(session, packet, route)
        lagging: list[Lane] | None = None
        for target in route.targets:
            outbox = target.outbox
            lane = target.lane
            if outbox.credit > 0 and not lane.waiting:
                outbox.credit -= cost
                if outbox.size + cost > FRAME_TARGET:
                    outbox.seal()
                outbox.parts += (target.head, payload)
                outbox.count += 1
                outbox.size += cost
                if not outbox.listed:
                    outbox.listed = True
                    outbox.listing.append(outbox)
            else:
                payload = _detached(payload)
                self._hold(target, payload, cost)
            if outbox.credit < lane.mark:
                lagging = [*lagging, lane] if lagging else [lane]
        for group in route.groups:
            target = group.choose()
            if target.ready():
                target.outbox.credit -= cost
                target.outbox.add(target.head + payload)
            else:
                payload = _detached(payload)
                self._hold(target, payload, cost)
            if target.outbox.credit < target.lane.mark:
                lagging = [*lagging, target.lane] if lagging else [target.lane]
        if lagging:
            self._owe(session.outbox, lagging, cost)

    def credit(self, session: Session, amount: int) -> list[Outbox]:
        """A subscriber can take `amount` bytes more; returns publishers that have credit again."""
        # Never more than four windows: a peer that claims endless credit would switch flow control off for itself.
        session.outbox.credit = min(session.outbox.credit + amount, 4 * self._limits.event_credit)
        lanes = [lane for lane in session.lanes.values() if lane.waiting or lane.debts]
        drain_in_order([lane for lane in lanes if lane.waiting])
        paid: list[Outbox] = []
        for lane in lanes:
            paid += self._settle(lane) if lane.users else self._retire(session, lane)
        return paid

    def audience(self, subject: str) -> int:
        """How many peers and groups got the last event on this subject, if nothing has changed since."""
        route = self._routes.get(subject)
        return len(route.targets) + len(route.groups) if route else 0

    def _enter(self, subscription: Subscription) -> None:
        self._tree.insert(subscription.pattern, subscription)
        self._routes.clear()
        if subscription.last:
            subscription.last = False
            self._send_last_values(subscription)

    def _hold(self, target: Target, payload: bytes, cost: int) -> None:
        lane = target.lane
        if lane.policy == DISCONNECT and lane.full:
            self.slow[lane.outbox] = "it does not read its events"
            self.dropped += 1
        else:
            self._wait(target, payload, cost)

    def _wait(self, target: Target, payload: bytes, cost: int) -> None:
        lane = target.lane
        if not lane.waiting:
            self.strained[lane] = None
        self.dropped += lane.hold(Held(next(self._arrivals), target, payload, cost))

    def _owe(self, publisher: Outbox, lanes: list[Lane], amount: int) -> None:
        """Withhold a publisher's credit until the peers of all these lanes have caught up."""
        publisher.consumed -= amount
        debts = lanes[0].debts
        if len(lanes) == 1 and debts and debts[-1].publisher is publisher and debts[-1].lanes == 1:
            debts[-1].amount += amount
            return
        debt = Debt(publisher, amount, len(lanes))
        for lane in lanes:
            lane.debts.append(debt)
            self._indebted[lane] = self.strained[lane] = None

    def _settle(self, lane: Lane) -> list[Outbox]:
        paid = lane.settle()
        if not lane.debts:
            self._indebted.pop(lane, None)
        return paid

    def _forgive(self, lane: Lane) -> list[Outbox]:
        self._indebted.pop(lane, None)
        return lane.forgive()

    def _retire(self, session: Session, lane: Lane) -> list[Outbox]:
        """Free the publishers that wait for a lane without subscriptions, and the lane itself when it is empty."""
        if not lane.waiting:
            del session.lanes[lane.policy, lane.max_events]
        return self._forgive(lane)

    def _special(self, session: Session, packet: p.Publish, route: Route) -> None:
        if route.reserved and not session.identity.local:
            raise BusError("denied", f"publishing to {packet.subject!r} is for the broker only: it is reserved")
        if packet.flags & p.RETAIN:
            self.retained.keep(packet.subject, bytes(packet.payload))

    def _resolve(self, subject: str) -> Route:
        check_subject(subject)
        found = sorted(self._tree.match(subject), key=_order)
        self._remember(len(found))
        grouped: dict[str, list[Target]] = {}
        targets: list[Target] = []
        for _, subscriptions in groupby(found, key=_order):
            for covered in _batches(subscriptions):
                group = covered[0].group
                (targets if group is None else grouped.setdefault(group, [])).append(_target(subject, covered))
        groups = [Group(members, self._turn(name)) for name, members in grouped.items()]
        route = self._routes[subject] = Route(targets, groups, is_reserved(subject))
        return route

    def _remember(self, subscriptions: int) -> None:
        """Make room for one more route, which leads to so many subscriptions."""
        if not self._routes:
            self._remembered = 0
        most = self._limits.cached_subjects
        if len(self._routes) >= most or self._remembered >= TARGETS_PER_SUBJECT * most:
            self._routes.clear()
            self._remembered = 0
        self._remembered += subscriptions

    def _turn(self, group: str) -> Turn:
        # Subscribing again and again under new group names must not grow this for ever.
        if len(self._turns) > self._limits.cached_subjects:
            self._turns.clear()
        return self._turns.setdefault(group, Turn(self._seed))

    def _lane(self, session: Session, options: dict[str, Any]) -> Lane:
        policy = options.get("overflow", BLOCK)
        bound = options.get("max_pending", self._limits.backlog_events)
        if policy not in POLICIES:
            raise BusError("bad_packet", f"overflow policy {policy!r:.60} is unknown: use one of {', '.join(POLICIES)}")
        if type(bound) is not int or not 0 < bound <= self._limits.backlog_events:
            raise BusError("bad_packet", f"max_pending is {bound!r:.60}: use 1 to {self._limits.backlog_events}")
        lane = session.lanes.get((policy, bound))
        if lane is None:
            if len(session.lanes) >= MAX_LANES:
                text = f"this session uses {MAX_LANES} combinations of overflow and max_pending, the most allowed"
                raise BusError("limit", text)
            lane = session.lanes[policy, bound] = Lane(
                session.outbox,
                policy,
                bound,
                self._limits.backlog_bytes,
                self._limits.event_credit,
                self._backlog,
            )
        return lane

    def _send_last_values(self, subscription: Subscription) -> None:
        for subject, payload in self.retained.matching(subscription.pattern):
            target = _target(subject, (subscription,))
            cost = len(payload) + EVENT_OVERHEAD
            if target.ready():
                target.outbox.credit -= cost
                target.outbox.add(target.head + payload)
            else:
                self._wait(target, payload, cost)


def _detached(payload: Raw | bytes) -> bytes:
    """A copy, once: a Raw that waits would keep the publisher's whole frame, up to megabytes, alive."""
    return payload if type(payload) is bytes else bytes(payload)


def _order(subscription: Subscription) -> tuple[bytes, str, int, str, int]:
    """Subscriptions of one peer and lane share one EVENT packet; each member of a group stands for itself."""
    lane = subscription.lane
    member = 0 if subscription.group is None else subscription.id
    return lane.outbox.peer, subscription.group or "", member, lane.policy, lane.max_events


def _batches(subscriptions: Iterable[Subscription]) -> Iterator[tuple[Subscription, ...]]:
    remaining = iter(subscriptions)
    while batch := tuple(islice(remaining, IDS_PER_EVENT)):
        yield batch


def _target(subject: str, covered: tuple[Subscription, ...]) -> Target:
    lane = covered[0].lane
    return Target(lane.outbox, lane, event_head([each.id for each in covered], subject), covered)
