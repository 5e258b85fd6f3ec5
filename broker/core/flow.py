"""Flow control of events: subscriptions, the lanes they wait in, and the debts of publishers.

Credit is counted in bytes, as the window updates of HTTP/2 (RFC 9113 section 5.2). Events for a peer without credit
wait in a lane; what happens when the lane is full is the subscription's policy. Under `block` the publisher's own
credit is withheld until the lane has drained, which is the only way that a publisher is ever made to wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from msgspec import Raw

from plugin_sdk.wire.outbox import Outbox

BLOCK, DROP_OLDEST, DROP_NEWEST, DISCONNECT = "block", "drop_oldest", "drop_newest", "disconnect"
POLICIES = (BLOCK, DROP_OLDEST, DROP_NEWEST, DISCONNECT)


@dataclass(slots=True, eq=False)
class Subscription:
    """One SUBSCRIBE in force."""

    id: int
    pattern: str
    group: str | None
    lane: Lane
    dropped: int = 0


@dataclass(slots=True, eq=False)
class Target:
    """Where an event of one subject goes: one peer's outbox, behind a ready-made packet head."""

    outbox: Outbox
    lane: Lane
    head: bytes
    subscriptions: tuple[Subscription, ...]

    def ready(self) -> bool:
        """Whether an event may go out at once."""
        return self.outbox.credit > 0 and not self.lane.waiting


@dataclass(slots=True, eq=False)
class Debt:
    """Credit of a publisher that is withheld until `lanes` more lanes have drained."""

    publisher: Outbox
    amount: int
    lanes: int = 0


class Lane:
    """Events that wait for one peer's credit, under one policy and one bound."""

    __slots__ = ("debts", "max_bytes", "max_events", "outbox", "policy", "size", "waiting")

    def __init__(self, outbox: Outbox, policy: str, max_events: int, max_bytes: int) -> None:
        self.outbox = outbox
        self.policy = policy
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.waiting: deque[tuple[Target, bytes, int]] = deque()
        self.size = 0
        self.debts: list[Debt] = []

    @property
    def full(self) -> bool:
        """Whether the bound is reached."""
        return len(self.waiting) >= self.max_events or self.size >= self.max_bytes

    def hold(self, target: Target, payload: Raw, cost: int) -> int:
        """Let an event wait, by the lane's policy; returns how many events were dropped."""
        dropped = 0
        if self.full and self.policy == DROP_NEWEST:
            return _count_drop(target)
        while self.full and self.policy == DROP_OLDEST:
            oldest, _, its_cost = self.waiting.popleft()
            self.size -= its_cost
            dropped += _count_drop(oldest)
        # A copy: the Raw would keep the publisher's whole frame, up to megabytes, alive.
        self.waiting.append((target, bytes(payload), cost))
        self.size += cost
        return dropped

    def drain(self) -> None:
        """Send what the peer's credit allows."""
        outbox = self.outbox
        while self.waiting and outbox.credit > 0:
            target, payload, cost = self.waiting.popleft()
            self.size -= cost
            outbox.credit -= cost
            outbox.add(target.head + payload)

    def settle(self) -> list[Outbox]:
        """Publishers whose withheld credit is free again, once the lane is half empty."""
        if not self.debts or len(self.waiting) * 2 > self.max_events or self.size * 2 > self.max_bytes:
            return []
        return self.forgive()

    def forgive(self) -> list[Outbox]:
        """The same without looking at the lane: its peer is gone."""
        paid = []
        for debt in self.debts:
            debt.lanes -= 1
            if not debt.lanes:
                debt.publisher.consumed += debt.amount
                paid.append(debt.publisher)
        self.debts.clear()
        return paid


def _count_drop(target: Target) -> int:
    for subscription in target.subscriptions:
        subscription.dropped += 1
    return 1
