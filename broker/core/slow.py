"""Slow consumers: which subscribers do not keep up, since when, and who waits for them.

Found by looking from time to time at the lanes in which something waits or for which credit is withheld; the path of
an event only notes a lane when that begins. A subscriber that its publishers wait for now and then merely sets the
pace; it is slow when it has not caught up once for some time, or when events were dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from broker.core.backlog import Backlog
from broker.core.flow import Debt, Lane
from broker.core.notices import SlowConsumer
from broker.core.sessions import Session
from broker.core.snapshot import SlowView
from plugin_sdk.wire.outbox import Outbox

LOOK_SECS = 0.25
SLOW_SECS = 2.0  # so long without catching up is slow
CALM_SECS = 2.0  # so long without falling behind is not any more
TOLD_PER_LOOK = 5  # notices; a thousand peers that stop reading at once are told of one after the other
SHOWN = 10  # patterns and publishers that are named


class Strain:
    """What is known of a lane that does not keep up.

    `since` is when it last kept up, `seen` when it last did not; `dropped` counts since it was found.
    """

    __slots__ = ("_head", "dropped", "lane", "seen", "session", "since", "told")

    def __init__(self, lane: Lane, session: Session, now: float) -> None:
        self.lane = lane
        self.session = session
        self.since = now
        self.seen = now
        self.dropped = 0
        self.told = False
        self._head = _oldest_debt(lane)

    def look(self, now: float) -> bool:
        """Look once more; returns whether the lane is slow."""
        lane, head = self.lane, _oldest_debt(self.lane)
        # Debts are settled together: while the oldest one is the same, the peer has not caught up for a moment.
        behind = lane.lagging and head is self._head
        dropping, lane.dropped, self._head = lane.dropped, 0, head
        self.dropped += dropping
        if behind or dropping:
            self.seen = now
        elif not self.told:
            self.since = now
        return bool(self.dropped) or now - self.since >= SLOW_SECS

    def recover(self, now: float) -> None:
        """Begin anew: it keeps up."""
        self.told, self.dropped, self.since = False, 0, now


class SlowConsumers:
    """The lanes that are looked at.

    `count` is how often a consumer has become slow.

    Args:
        window: bytes of events that a peer is sent before it has handled any.
        session_of: finds the session with this outbox, unless it has ended.
    """

    def __init__(self, window: int, session_of: Callable[[Outbox], Session | None]) -> None:
        self._window = window
        self._session_of = session_of
        self._strains: dict[Lane, Strain] = {}
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self._strains)

    def look(self, strained: dict[Lane, None], now: float) -> list[SlowConsumer]:
        """Look at all lanes.

        Args:
            strained: lanes in which events have begun to wait, or to be owed for, since the last time; emptied.
            now: seconds of a monotonic clock.

        Returns:
            What has changed, as far as it is to be told now.
        """
        for lane in strained:
            session = self._session_of(lane.outbox)
            if session is not None and lane not in self._strains:
                self._strains[lane] = Strain(lane, session, now)
        strained.clear()
        told: list[SlowConsumer] = []
        for strain in list(self._strains.values()):
            state = self._judge(strain, now, len(told) < TOLD_PER_LOOK)
            if state:
                told.append(SlowConsumer(state, self._view(strain, now)))
            if state == "recovered":
                strain.recover(now)
        return told

    def views(self, now: float) -> Iterator[SlowView]:
        """Those that do not keep up at this moment, or were told of and have not recovered."""
        for strain in self._strains.values():
            if strain.told or strain.lane.lagging:
                yield self._view(strain, now)

    def _judge(self, strain: Strain, now: float, tell: bool) -> str:
        """What has become of a lane, when that is to be told; nothing is lost when it is told later."""
        lane = strain.lane
        slow = strain.look(now)
        if self._session_of(lane.outbox) is not strain.session:
            if tell or not strain.told:
                del self._strains[lane]
            return "gone" if tell and strain.told else ""
        # Without subscriptions it is behind with nothing; a new one of the same kind is another one that may be slow.
        retired = strain.session.lanes.get((lane.policy, lane.max_events)) is not lane
        if strain.told and (retired or now - strain.seen >= CALM_SECS) and tell:
            return "recovered"
        if slow and tell and not (strain.told or retired):
            strain.told = True
            self.count += 1
            return "slow"
        if not strain.told and (retired or not (slow or lane.lagging)):
            del self._strains[lane]
        return ""

    def _view(self, strain: Strain, now: float) -> SlowView:
        lane, session = strain.lane, strain.session
        patterns = [each.pattern for each in session.subscriptions.values() if each.lane is lane]
        owed = (self._session_of(outbox) for outbox in dict.fromkeys(debt.publisher for debt in lane.debts))
        return SlowView(
            session=session.number,
            name=session.name,
            role=session.role,
            instance=session.instance,
            patterns=tuple(patterns[:SHOWN]),
            overflow=lane.policy,
            max_pending=lane.max_events,
            waiting=len(lane.waiting),
            waiting_bytes=lane.size,
            unread_bytes=max(self._window - lane.outbox.credit, 0),
            dropped=strain.dropped,
            secs=now - strain.since,
            publishers=tuple(dict.fromkeys(each.name for each in owed if each is not None))[:SHOWN],
        )


def heaviest(sessions: Iterable[Session], backlog: Backlog) -> tuple[int, Session | None]:
    """How many bytes wait because of the session because of which most do, and that session; never the broker's own."""
    worst: tuple[int, Session | None] = (0, None)
    for each in sessions:
        weight = each.waiting_bytes + each.held + backlog.stuck.get(each.outbox, 0)
        if weight > worst[0] and not each.identity.local:
            worst = weight, each
    return worst


def _oldest_debt(lane: Lane) -> Debt | None:
    return lane.debts[0] if lane.debts else None
