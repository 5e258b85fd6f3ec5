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
from broker.core.flow import BLOCK, DISCONNECT, DROP_NEWEST, DROP_OLDEST, Debt, Lane, Subscription
from broker.core.notices import SlowConsumer
from broker.core.requests import Requests
from broker.core.services import Service
from broker.core.sessions import Instance, Session
from broker.core.slow import LOOK_SECS, SLOW_SECS
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, join_frame
from plugin_sdk.wire.deadlines import RESOLUTION
from plugin_sdk.wire.limits import Limits
from plugin_sdk.wire.subjects import matches
from tests.simulation.content import Key, key_of

_ANY = Limits(frame_bytes=2**30)
_BIT = 1e-6  # for rounding errors of the clock
LARGEST_EVENT = 2_100  # bytes of credit that one costs at most

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
    owned: set[Key] = field(default_factory=set)  # sent before its peer was told that it is over
    over: bool = False


@dataclass(eq=False)
class Account:
    """One session."""

    session: Session
    interests: dict[int, Interest] = field(default_factory=dict)
    ended: dict[int, Interest] = field(default_factory=dict)
    ending: dict[int, Interest] = field(default_factory=dict)  # by the ref of the UNSUBSCRIBE
    calls: dict[int, tuple[int, float]] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
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
        self._fault = self.blame = fault
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
        self._ran: dict[Instance, int] = {}
        self._made: dict[tuple[int, int], Subscription] = {}
        self._closing: list[Account] = []

    def took(self, before: Session | None, after: Session | None, frame: bytes, now: float) -> None:
        """The router took a frame from a peer whose session was `before`, and is `after`."""
        number, packets = decode_frame(frame, _ANY)
        if before is not None and number == before.number:
            self._took_all(self.accounts[number], packets, now)
            self._check_withheld(self.accounts[number], packets, after)
        self.close_ended()
        if after is not None and after is not before:
            self.accounts[after.number] = self.by_address[after.peer] = Account(after)

    def made(self, session: Session, subscription: Subscription) -> None:
        """A subscription has come into force; the very frame that made it may end it, too."""
        self._made[session.number, subscription.id] = subscription

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
            elif kind is p.Ok and packet.ref in account.ending:
                account.ending.pop(packet.ref).over = True
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
            service = requests.services.get(pending.service)
            waits = pending.instance is None and not (service is not None and service.instances)
            if waits and now > pending.give_up + RESOLUTION + _BIT:
                self._fault(f"request {pending.id} waits longer for {pending.service} than it was told to")

    def check_backlog(self, backlog: Backlog, sessions: Collection[Session]) -> None:
        """What waits for all together is counted right, and never more than there is room for."""
        lanes = [lane for session in sessions for lane in session.lanes.values()]
        waits = sum(held.cost for lane in lanes for held in lane.waiting)
        waits += sum(session.held + backlog.stuck.get(session.outbox, 0) for session in sessions)
        if backlog.size != waits:
            self._fault(f"{waits} bytes wait at the broker, which believes that {backlog.size} do")
        if waits > backlog.limit:
            self._fault(f"{waits} bytes wait at the broker, which has room for {backlog.limit}")
        for lane in lanes:
            self._check_lane(lane)

    def check_services(self, services: Iterable[Service]) -> None:
        """No instance is given more than it takes, and no request waits while one has room."""
        ran, self._ran = self._ran, {}
        for service in services:
            for each in service.instances:
                runs = sum(pending.service == service.name for pending in each.session.serving.values())
                if each.outstanding != runs:
                    self._fault(f"{runs} requests run at {service.name}, and the broker counts {each.outstanding}")
                if runs > max(each.limit, ran.get(each, 0)):
                    self._fault(f"{service.name} was handed {runs} requests, and takes {each.limit}")
                self._ran[each] = runs
            if service.waiting and any(each.outstanding < each.limit for each in service.instances):
                self._fault(f"requests wait for {service.name}, which has room")

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
                ended = account.ended[packet.subscription] = account.interests.pop(packet.subscription)
                account.ending[packet.ref] = ended
            elif kind is p.Cancel:
                account.cancelled.add(packet.ref)

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
        record = self._made.pop((account.session.number, packet.ref), None)
        if record is None:
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
        if not interest.over:
            interest.owned.add(key)
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
        if type(packet) is p.Error and packet.code == "cancelled" and packet.ref not in account.cancelled:
            self._fault(f"request {packet.ref} of {account.session.name} was cancelled, which nobody had asked for")

    def _request(self, packet: p.Request) -> None:
        if packet.request in self.executed:
            self._fault(f"request {packet.request} was handed out twice")
        self.executed.add(packet.request)

    def _lose_frame(self, account: Account, frame: bytes) -> None:
        for packet in decode_frame(frame, _ANY)[1]:
            if type(packet) is p.Event:
                self._lose((self._group_of(account, each) for each in packet.subscriptions), packet.payload)

    def _group_of(self, account: Account, number: int) -> str | None:
        # What the very frame has made that ends the session, its account does not know yet.
        made = self._made.get((account.session.number, number))
        return made.group if made is not None else account.group_of(number)

    def _lose(self, groups: Iterable[str | None], payload: Raw | bytes) -> None:
        for group in groups:
            if group is not None:
                self.group_lost.add((group, key_of(payload)))

    def _check_withheld(self, account: Account, packets: list[Any], after: Session | None) -> None:
        """Who publishes to somebody that lags under `block` waits for it."""
        lasts = any(type(packet) is p.Subscribe and packet.options.get("last") for packet in packets)
        subjects = {packet.subject for packet in packets if type(packet) is p.Publish}
        if after is not account.session or lasts or not subjects:
            return
        for other in self.accounts.values():
            # Of two lanes the second may use up the credit of both, for which the next event is owed.
            if len(other.session.lanes) != 1:
                continue
            for each in other.interests.values():
                lane = each.record.lane
                behind = lane.policy == BLOCK and lane.users and lane.lagging and not lane.debts
                if behind and each.group is None and any(_covers(each.pattern, subject) for subject in subjects):
                    self._fault(f"{_name(each)} lags, and {account.session.name} publishes on")

    def _check_lane(self, lane: Lane) -> None:
        if lane.outbox.credit < -LARGEST_EVENT:
            self._fault(f"a peer was sent {-lane.outbox.credit} bytes more than its credit")
        if lane.policy not in (DROP_OLDEST, DROP_NEWEST) or not lane.waiting:
            return
        if len(lane.waiting) > lane.max_events or lane.size - lane.waiting[-1].cost >= lane.max_bytes:
            self._fault(f"{len(lane.waiting)} events of {lane.size} bytes wait under {lane.policy}, beyond the bound")

    def check_books(self) -> None:
        """At quiescence: what was due was sent, dropped and counted, or lost with a session."""
        accounts = [account for account in self.accounts.values() if account.open]
        for account in accounts:
            if account.calls:
                self._fault(f"requests {sorted(account.calls)} of {account.session.name} were never answered")
            ended = sum(each.record.dropped for each in account.ended.values())
            if account.session.losses.events != ended:
                self._fault(f"subscriptions of {account.session.name} that ended had lost {ended} events")
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
