"""Bugs put into the core and the SDK on purpose: the simulation is worth something only if it finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from broker.core.events import Events, Route
from broker.core.flow import Lane
from broker.core.notices import SlowConsumer
from broker.core.requests import Requests
from broker.core.router import Router
from broker.core.sessions import Pending, Session
from broker.core.slow import SlowConsumers, Strain
from plugin_sdk.calls import Calls
from plugin_sdk.inlets import Inlets
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.deadlines import Deadlines
from plugin_sdk.wire.outbox import Outbox

Mutant = Callable[[Callable[..., Any]], Callable[..., Any]]


def _lost_callee_keeps_its_requests(forget: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Requests, session: Session, reason: str, now: float) -> None:
        session.serving.clear()
        forget(self, session, reason, now)

    return mutated


def _credit_is_dropped_on_unsubscribe(forgive: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Events, lane: Lane) -> list[Outbox]:
        lane.debts.clear()
        self._indebted.pop(lane, None)
        return []

    return mutated


def _group_event_goes_to_two_members(resolve: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Events, subject: str) -> Route:
        route: Route = resolve(self, subject)
        route.groups += [group for group in route.groups if len(group.members) > 1]
        return route

    return mutated


def _debts_are_not_settled(settle: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: []


def _waiting_events_are_lost(send_next: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Lane) -> None:
        send_next(self)
        if self.waiting:
            self.size -= self.waiting.popleft().cost

    return mutated


def _reply_answers_another_request(reply: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Requests, session: Session, packet: p.Reply, now: float) -> None:
        reply(self, session, p.Reply(min(session.serving, default=packet.ref), packet.payload), now)

    return mutated


def _outstanding_is_not_counted_down(end: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Requests, pending: Pending, outcome: str, now: float) -> None:
        end(self, pending, outcome, now)
        if pending.instance is not None:
            pending.instance.outstanding += 1

    return mutated


def _lost_peer_is_not_removed(peer_lost: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, peer, now, text="": None


def _deadline_is_looked_at_late(next_deadline: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Deadlines) -> float | None:
        due: float | None = next_deadline(self)
        return None if due is None else due + 0.05

    return mutated


def _refused_frame_goes_to_the_end(put_back: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Outbox, frame: bytes) -> None:
        self.sealed.append(frame)
        self.sealed_bytes += len(frame)

    return mutated


def _refused_frame_is_lost(put_back: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, frame: None


def _nothing_is_subscribed_again(restore: Callable[..., Any]) -> Callable[..., Any]:
    async def mutated(self: Inlets[Any], timeout: float) -> None:
        """Forget it."""

    return mutated


def _credit_of_unclaimed_events_is_kept(on_event: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Inlets[Any], packet: p.Event) -> None:
        unclaimed, owed = self.unclaimed, self._owed
        on_event(self, packet)
        if self.unclaimed > unclaimed:
            self._owed = min(owed, self._owed)

    return mutated


def _nobody_has_to_go_when_there_is_no_room(make_room: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, now: False


def _what_waited_for_a_lost_session_is_still_counted(empty: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Lane) -> int:
        size = self.size
        number: int = empty(self)
        self.backlog.size += size
        return number

    return mutated


def _slow_consumers_are_not_told_of(look: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: SlowConsumers, strained: dict[Lane, None], now: float) -> list[SlowConsumer]:
        strained.clear()
        return []

    return mutated


def _slow_consumers_never_recover(recover: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, now: None


def _calls_survive_their_session(fail_all: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, error: None


MUTANTS: dict[str, tuple[type[Any], str, Mutant]] = {
    "a lost callee keeps its requests": (Requests, "forget", _lost_callee_keeps_its_requests),
    "withheld credit is dropped on unsubscribe": (Events, "_forgive", _credit_is_dropped_on_unsubscribe),
    "a group event goes to two members": (Events, "_resolve", _group_event_goes_to_two_members),
    "debts are not settled": (Lane, "settle", _debts_are_not_settled),
    "waiting events of a lane are lost": (Lane, "send_next", _waiting_events_are_lost),
    "a reply answers another request": (Requests, "reply", _reply_answers_another_request),
    "outstanding requests are not counted down": (Requests, "_end", _outstanding_is_not_counted_down),
    "a lost peer is not removed": (Router, "peer_lost", _lost_peer_is_not_removed),
    "deadlines are looked at late": (Deadlines, "next", _deadline_is_looked_at_late),
    "a refused frame goes to the end of the outbox": (Outbox, "put_back", _refused_frame_goes_to_the_end),
    "a refused frame is lost": (Outbox, "put_back", _refused_frame_is_lost),
    "nothing is subscribed again after a reconnect": (Inlets, "restore", _nothing_is_subscribed_again),
    "credit of unclaimed events is kept": (Inlets, "_on_event", _credit_of_unclaimed_events_is_kept),
    "nobody has to go when there is no room": (Router, "_make_room", _nobody_has_to_go_when_there_is_no_room),
    "what waited for a lost session is still counted": (
        Lane,
        "empty",
        _what_waited_for_a_lost_session_is_still_counted,
    ),
    "slow consumers are not told of": (SlowConsumers, "look", _slow_consumers_are_not_told_of),
    "slow consumers never recover": (Strain, "recover", _slow_consumers_never_recover),
    "calls survive their session": (Calls, "fail_all", _calls_survive_their_session),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with one of the bugs of `MUTANTS`."""
    owner, method, mutate = MUTANTS[name]
    original = getattr(owner, method)
    setattr(owner, method, mutate(original))
    try:
        yield
    finally:
        setattr(owner, method, original)
