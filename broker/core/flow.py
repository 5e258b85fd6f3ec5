"""Flow control of events: subscriptions, the lanes they wait in, and the debts of publishers.

Credit is counted in bytes, as the window updates of HTTP/2 (RFC 9113 section 5.2). Events for a peer without credit
wait in a lane; what happens when the lane is full is the subscription's policy. Under `block` a publisher's own
credit is withheld from the moment when a subscriber has used up half of its credit until it has caught up: publishers
then keep the pace of the subscriber, mostly before anything has to wait. That is the only way in which a publisher is
ever made to wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from broker.core.backlog import Backlog
from plugin_sdk.wire.outbox import Outbox

BLOCK, DROP_OLDEST, DROP_NEWEST, DISCONNECT = "block", "drop_oldest", "drop_newest", "disconnect"
POLICIES = (BLOCK, DROP_OLDEST, DROP_NEWEST, DISCONNECT)

# Each lane has a bound of its own, so their number must have one too.
MAX_LANES = 16


@dataclass(slots=True, eq=False)
class Losses:
    """How many events the subscriptions of a session have lost that have ended since."""

    events: int = 0


@dataclass(slots=True, eq=False)
class Subscription:
    """One SUBSCRIBE in force; `last` while it still has to get the last values.

    What waits for it when it ends is still sent, or dropped: `heir` then takes over its count.
    """

    id: int
    pattern: str
    group: str | None
    lane: Lane
    dropped: int = 0
    last: bool = False
    heir: Losses | None = None


@dataclass(slots=True, eq=False)
class Target:
    """Where an event of one subject goes: one peer's outbox, behind a ready-made packet head."""

    outbox: Outbox
    lane: Lane
    head: bytes
    subscriptions: tuple[Subscription, ...]

    def takes(self, total: int) -> bool:
        """Whether events of that much credit together may go out at once."""
        return self.outbox.credit >= total and not self.lane.waiting

    def ready(self) -> bool:
        """Whether an event may go out at once."""
        return self.outbox.credit > 0 and not self.lane.waiting

    def keeps_up(self) -> bool:
        """Whether an event may go out at once, and nobody has to wait for the peer."""
        return self.outbox.credit > 0 and not self.lane.lagging


@dataclass(slots=True, eq=False)
class Debt:
    """Credit of a publisher that is withheld until the peers of `lanes` more lanes have caught up."""

    publisher: Outbox
    amount: int
    lanes: int


@dataclass(slots=True)
class Held:
    """One event that waits; `arrival` orders it among the events of all lanes."""

    arrival: int
    target: Target
    payload: bytes
    cost: int


class Lane:
    """Events that wait for one peer's credit, under one policy and one bound.

    `mark` is the credit below which the peer counts as lagging, when the policy is `block`; `users` counts the
    subscriptions in force; `ownerless` the bytes for which no publisher waits any more, because it left: those that
    still wait here, or a little more; `dropped` the events dropped since slow.py looked last.
    """

    __slots__ = (
        "backlog",
        "debts",
        "dropped",
        "mark",
        "max_bytes",
        "max_events",
        "outbox",
        "ownerless",
        "policy",
        "size",
        "users",
        "waiting",
    )

    def __init__(
        self, outbox: Outbox, policy: str, max_events: int, max_bytes: int, window: int, backlog: Backlog
    ) -> None:
        self.outbox = outbox
        self.backlog = backlog
        # Only `block` looks at it; for the others no credit is ever this low.
        self.mark: float = window // 2 if policy == BLOCK else float("-inf")
        self.policy = policy
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.waiting: deque[Held] = deque()
        self.size = 0
        self.users = 0
        self.debts: list[Debt] = []
        self.ownerless = 0
        self.dropped = 0

    @property
    def full(self) -> bool:
        """Whether the bound is reached."""
        return len(self.waiting) >= self.max_events or self.size >= self.max_bytes

    @property
    def lagging(self) -> bool:
        """Whether publishers should wait for this lane's peer."""
        return self.outbox.credit < self.mark or bool(self.waiting)

    @property
    def overrun(self) -> bool:
        """Whether more waits than publishers can be made to wait for."""
        return self.ownerless > self.max_bytes

    def hold(self, event: Held) -> int:
        """Let an event wait, by the lane's policy; returns how many events were dropped."""
        before, fits = self.dropped, True
        if self.policy == DROP_OLDEST:
            while not (fits := self._takes(event.cost)) and self.waiting:
                self._drop(self._pop())
        elif self.policy == DROP_NEWEST:
            fits = self._takes(event.cost)
        if not fits:
            self._drop(event)
        else:
            self.waiting.append(event)
            self.size += event.cost
            self.backlog.size += event.cost
        return self.dropped - before

    def send_next(self) -> None:
        """Send the event that has waited longest."""
        event = self._pop()
        self.outbox.credit -= event.cost
        self.outbox.add(event.target.head + event.payload)

    def drain(self) -> None:
        """Send what the peer's credit allows."""
        while self.waiting and self.outbox.credit > 0:
            self.send_next()

    def settle(self) -> list[Outbox]:
        """Publishers whose withheld credit is free again, once the peer has caught up."""
        self.ownerless = min(self.ownerless, self.size)
        return [] if self.lagging else self._pay()

    def forgive(self) -> list[Outbox]:
        """The same without looking at the lane: its peer is gone, or wants no more."""
        self._lose_owners(sum(debt.amount for debt in self.debts))
        return self._pay()

    def disown(self, publisher: Outbox) -> None:
        """A publisher is gone: nobody waits for its events any more."""
        left = [debt for debt in self.debts if debt.publisher is not publisher]
        self._lose_owners(sum(debt.amount for debt in self.debts) - sum(debt.amount for debt in left))
        self.debts = left

    def empty(self) -> int:
        """Let nothing wait any more, as the session is over; returns how many events did."""
        number = len(self.waiting)
        self.waiting.clear()
        self.backlog.size -= self.size
        self.size = 0
        return number

    def _takes(self, cost: int) -> bool:
        return not self.full and self.backlog.size + cost <= self.backlog.droppable

    def _pop(self) -> Held:
        event = self.waiting.popleft()
        self.size -= event.cost
        self.backlog.size -= event.cost
        return event

    def _drop(self, event: Held) -> None:
        self.dropped += 1
        for subscription in event.target.subscriptions:
            subscription.dropped += 1
            if subscription.heir is not None:
                subscription.heir.events += 1

    def _lose_owners(self, amount: int) -> None:
        # Part of what publishers owe has been sent to the peer long ago: it lags, but nothing of that waits here.
        self.ownerless = min(self.ownerless + amount, self.size)

    def _pay(self) -> list[Outbox]:
        paid = []
        for debt in self.debts:
            debt.lanes -= 1
            if not debt.lanes:
                debt.publisher.consumed += debt.amount
                paid.append(debt.publisher)
        self.debts.clear()
        return paid


def drain_in_order(lanes: list[Lane]) -> None:
    """Send what the one peer behind all of these lanes can take, in the order in which it arrived."""
    while len(lanes) > 1 and lanes[0].outbox.credit > 0:
        min(lanes, key=_arrival).send_next()
        lanes = [lane for lane in lanes if lane.waiting]
    for lane in lanes:
        lane.drain()


def _arrival(lane: Lane) -> int:
    return lane.waiting[0].arrival
