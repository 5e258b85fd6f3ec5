"""The auditor of the broker: sees each frame that it takes and sends, and keeps books of its own.

What is due to whom follows from what the broker took and acknowledged, by the reference matcher of the wire. A
subscription's `due` holds what it must still be sent, in order; being sent something later than the head of it means
that the events in between were dropped, which the broker must have counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from msgspec import Raw

from broker.core.backlog import Backlog
from broker.core.flow import BLOCK, DISCONNECT, Debt, Lane, Subscription
from broker.core.notices import SlowConsumer
from broker.core.requests import Requests
from broker.core.sessions import Session
from broker.core.slow import LOOK_SECS, SLOW_SECS
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, join_frame
from plugin_sdk.wire.deadlines import RESOLUTION
from plugin_sdk.wire.limits import Limits
from plugin_sdk.wire.subjects import matches
from tests.simulation.content import Key, key_of

_ANY = Limits(frame_bytes=2**30)
_BIT = 1e-6  # for rounding errors of the clock

_covers = lru_cache(maxsize=None)(matches)


@dataclass(eq=False)
class Interest:
    """One subscription that the broker has acknowledged."""

    id: int
    account: Account
    pattern: str
    group: str | None
    record: Subscription
    due: deque[Key] = field(default_factory=deque)
    skipped: int = 0


@dataclass(eq=False)
class Account:
    """One session."""

    session: Session
    interests: dict[int, Interest] = field(default_factory=dict)
    ended: dict[int, Interest] = field(default_factory=dict)
    calls: dict[int, tuple[int, float]] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    open: bool = True

    def interest(self, number: int) -> Interest | None:
        """A subscription that is or was in force."""
        return self.interests.get(number) or self.ended.get(number)

    def group_of(self, number: int) -> str | None:
        """The queue group of a subscription, if it has one."""
        found = self.interest(number)
        return found.group if found is not None else None


class Audit:
    """Books of what one broker after the other owes.

    Args:
        fault: told what is wrong.
        now: the clock.
        publishers: hears of each event that the broker takes: key and number of its session.
    """

    def __init__(
        self, fault: Callable[[str], None], now: Callable[[], float], publishers: Callable[[Key, int], None]
    ) -> None:
        self._fault = fault
        self._now = now
        self._on_routed = publishers
        self.begin()

    def begin(self) -> None:
        """A new broker knows nobody."""
        self.accounts: dict[int, Account] = {}
        self.by_address: dict[bytes, Account] = {}
        self.retained: dict[str, Key] = {}
        self.group_due: dict[tuple[str, Key], list[Interest]] = {}
        self.group_lost: set[tuple[str, Key]] = set()
        self.group_sent: set[tuple[str, Key]] = set()
        self.executed: set[int] = set()
        self.members: list[Subscription] = []
        self.members_ended_for_slowness = False
        self.slow: dict[tuple[int, str, int], None] = {}
        self._behind: dict[Lane, tuple[Debt, float]] = {}
        self._closing: list[Account] = []

    def took(self, before: Session | None, after: Session | None, frame: bytes, now: float) -> None:
        """The router took a frame from a peer whose session was `before`, and is `after`."""
        number, packets = decode_frame(frame, _ANY)
        if before is not None and number == before.number:
            self._took_all(self.accounts[number], packets, now)
        self.close_ended()
        if after is not None and after is not before:
            self.accounts[after.number] = self.by_address[after.peer] = Account(after)

    def close_ended(self) -> None:
        """Close the accounts of sessions that have been removed."""
        for account in self._closing:
            account.open = False
        self._closing.clear()

    def sent(self, address: bytes, frame: bytes) -> None:
        """The transport took a frame for a peer."""
        account = self.by_address.get(address)
        number, packets = decode_frame(frame, _ANY)
        if account is None or not account.open or number != account.session.number:
            return
        for packet in packets:
            kind = type(packet)
            if kind is p.Event:
                key = key_of(packet.payload)
                for each in packet.subscriptions:
                    self._event(account, each, key)
            elif kind is p.Reply or kind is p.Error:
                self._outcome(account, packet)
            elif kind is p.Request:
                self._request(packet)
            elif kind is p.Chunk and packet.ref not in account.calls:
                self._fault(f"a chunk was sent to request {packet.ref} of {account.session.name}, which does not run")

    def lost(self, address: bytes, frame: bytes) -> None:
        """The transport did not take a frame, as the connection is gone."""
        account = self.by_address.get(address)
        if account is not None:
            self._lose_frame(account, frame)

    def ends(self, session: Session) -> None:
        """A session is about to be removed: what waits for it is lost with it. Ask close_ended afterwards."""
        account = self.accounts[session.number]
        # It was open for what stood before in the frame that ends it.
        self._closing.append(account)
        for each in session.subscriptions.values():
            # What makes such a lane overflow is not in it any more, and was counted for all sessions together only.
            # Those that the account does not know yet were made by the very frame that ends the session.
            self.members_ended_for_slowness |= each.group is not None and each.lane.policy == DISCONNECT
        for lane in session.lanes.values():
            for held in lane.waiting:
                self._lose((each.group for each in held.target.subscriptions), held.payload)
        outbox = session.outbox
        for frame in (*outbox.sealed, join_frame(outbox.number, outbox.parts, outbox.count)):
            self._lose_frame(account, frame)

    def check_deadlines(self, requests: Requests, now: float) -> None:
        """No request may be found later than the resolution of deadlines after its time."""
        for pending in requests._pending.values():
            if now > pending.deadline + RESOLUTION + _BIT:
                self._fault(f"request {pending.id} is {now - pending.deadline:.3f} s over its deadline")

    def check_backlog(self, backlog: Backlog, sessions: Collection[Session]) -> None:
        """What waits for all together is counted right, and never more than there is room for."""
        lanes = [lane for session in sessions for lane in session.lanes.values()]
        waits = sum(held.cost for lane in lanes for held in lane.waiting)
        waits += sum(session.held + backlog.stuck.get(session.outbox, 0) for session in sessions)
        if backlog.size != waits:
            self._fault(f"{waits} bytes wait at the broker, which believes that {backlog.size} do")
        if waits > backlog.limit:
            self._fault(f"{waits} bytes wait at the broker, which has room for {backlog.limit}")

    def check_slow(self, indebted: Iterable[Lane], now: float) -> None:
        """Whoever has not caught up for so long has been told of."""
        before, self._behind = self._behind, {}
        for lane in indebted:
            debt, since = before.get(lane, (None, now))
            if debt is not lane.debts[0]:
                debt, since = lane.debts[0], now
            self._behind[lane] = debt, since
            account = self.by_address.get(lane.outbox.peer)
            if account is None or now - since < SLOW_SECS + 4 * LOOK_SECS:
                continue
            if account.open and (account.session.number, lane.policy, lane.max_events) not in self.slow:
                self._fault(f"{account.session.name} has been behind for {now - since:.1f} s, and nobody was told")

    def told(self, notice: SlowConsumer) -> None:
        """The router reports a slow consumer, or that it is none any more."""
        consumer = notice.consumer
        key = (consumer.session, consumer.overflow, consumer.max_pending)
        if (notice.state == "slow") == (key in self.slow):
            self._fault(f"{consumer.name} was told of as {notice.state} twice, or without having been slow")
        if notice.state == "slow":
            self.slow[key] = None
        else:
            self.slow.pop(key, None)

    def check_nobody_waits_for(self, session: Session, requests: Requests) -> None:
        """Every request of a session, and every one that it had in hand, ends with it."""
        for pending in requests._pending.values():
            callee = pending.instance.session if pending.instance is not None else None
            if session in (pending.caller, callee):
                self._fault(f"request {pending.id} goes on after the session of {session.name} has ended")

    def _took_all(self, account: Account, packets: list[Any], now: float) -> None:
        for packet in packets:
            kind = type(packet)
            if kind is p.Publish:
                self._publish(account.session.number, packet)
            elif kind is p.Call and packet.ref not in account.calls:
                account.calls[packet.ref] = (packet.timeout_ms, now)
            elif kind is p.Subscribe:
                self._subscribe(account, packet)
            elif kind is p.Unsubscribe and packet.subscription in account.interests:
                account.ended[packet.subscription] = account.interests.pop(packet.subscription)

    def _publish(self, number: int, packet: p.Publish) -> None:
        key = key_of(packet.payload)
        self._on_routed(key, number)
        if packet.flags & p.RETAIN:
            self.retained.pop(packet.subject, None)
            self.retained[packet.subject] = key
        for account in self.accounts.values():
            if not account.open:
                continue
            for interest in account.interests.values():
                if not _covers(interest.pattern, packet.subject):
                    continue
                if interest.group is None:
                    interest.due.append(key)
                else:
                    self.group_due.setdefault((interest.group, key), []).append(interest)

    def _subscribe(self, account: Account, packet: p.Subscribe) -> None:
        record = account.session.subscriptions.get(packet.ref)
        if record is None or packet.ref in account.interests:
            return
        interest = Interest(packet.ref, account, packet.pattern, packet.group, record)
        account.interests[packet.ref] = interest
        if packet.group is not None:
            self.members.append(record)
        if packet.options.get("last"):
            subjects = [packet.pattern] if packet.pattern in self.retained else self.retained
            interest.due.extend(self.retained[each] for each in subjects if _covers(packet.pattern, each))

    def _event(self, account: Account, number: int, key: Key) -> None:
        interest = account.interest(number)
        if interest is None:
            self._fault(f"event {key} was sent to {account.session.name} for subscription {number}, which never was")
            return
        if interest.group is not None:
            self._group_event(interest, interest.group, key)
            return
        due = interest.due
        while due:
            head = due.popleft()
            if head == key:
                break
            interest.skipped += 1
        else:
            self._fault(f"event {key} was sent to {_name(interest)} twice, out of order, or unasked")
        if interest.skipped > interest.record.dropped:
            self._fault(f"{_name(interest)} lost events before {key} without a drop that was counted")

    def _group_event(self, interest: Interest, group: str, key: Key) -> None:
        candidates = self.group_due.pop((group, key), None)
        if candidates is None:
            again = "a second time" if (group, key) in self.group_sent else "unasked"
            self._fault(f"event {key} was sent to group {group} {again}, now to {_name(interest)}")
        elif interest not in candidates:
            self._fault(f"event {key} was sent to {_name(interest)}, which does not cover it")
        self.group_sent.add((group, key))

    def _outcome(self, account: Account, packet: p.Reply | p.Error) -> None:
        if not packet.ref:
            return
        found = account.calls.pop(packet.ref, None)
        if found is None:
            if packet.ref in account.answered or type(packet) is p.Reply:
                self._fault(f"request {packet.ref} of {account.session.name} has ended, and was answered once more")
            return
        account.answered.add(packet.ref)
        timeout_ms, began = found
        if type(packet) is p.Error and packet.code == "timeout" and self._now() + _BIT < began + timeout_ms / 1000:
            self._fault(f"request {packet.ref} of {account.session.name} timed out before its deadline")

    def _request(self, packet: p.Request) -> None:
        if packet.request in self.executed:
            self._fault(f"request {packet.request} was handed out twice")
        self.executed.add(packet.request)

    def _lose_frame(self, account: Account, frame: bytes) -> None:
        for packet in decode_frame(frame, _ANY)[1]:
            if type(packet) is p.Event:
                self._lose((account.group_of(each) for each in packet.subscriptions), packet.payload)

    def _lose(self, groups: Iterable[str | None], payload: Raw | bytes) -> None:
        for group in groups:
            if group is not None:
                self.group_lost.add((group, key_of(payload)))

    def check_books(self) -> None:
        """At quiescence: what was due was sent, dropped and counted, or lost with a session."""
        accounts = [account for account in self.accounts.values() if account.open]
        for interest in [each for one in accounts for each in (*one.interests.values(), *one.ended.values())]:
            counted = interest.record.dropped
            missing = interest.skipped + len(interest.due)
            if interest.group is None and missing != counted:
                self._fault(f"{_name(interest)} lacks {missing} events, of which {counted} were counted as dropped")
            if counted and interest.record.lane.policy in (BLOCK, DISCONNECT):
                self._fault(f"{_name(interest)} dropped events under policy {interest.record.lane.policy}")
        lacking = set(self.group_due) - self.group_lost
        counted = sum(each.dropped for each in self.members)
        if len(lacking) != counted and not self.members_ended_for_slowness:
            self._fault(f"{len(lacking)} events of groups were not sent, and {counted} counted as dropped")


def _name(interest: Interest) -> str:
    return f"subscription {interest.id} of {interest.account.session.name} to {interest.pattern}"
