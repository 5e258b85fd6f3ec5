"""Bugs put into the core and the SDK on purpose: the simulation is worth something only if it finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from broker.core import router
from broker.core.backlog import Backlog
from broker.core.events import Events, Route
from broker.core.flow import Lane
from broker.core.notices import SlowConsumer
from broker.core.peers import Peers
from broker.core.requests import Requests
from broker.core.router import Router
from broker.core.sessions import Pending, Session
from broker.core.slow import SlowConsumers, Strain
from plugin_sdk.calls import Calls
from plugin_sdk.events import Event
from plugin_sdk.inlets import Inlets
from plugin_sdk.subscriptions import Subscription
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.deadlines import Deadlines
from plugin_sdk.wire.outbox import Outbox
from tests.simulation.request_mutants import REQUEST_MUTANTS

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


def _process_is_kept_out_by_its_old_session(same_process: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, name, instance, nonce: ()


def _publishers_do_not_wait(owe: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, publisher, lanes, amount: None


def _lanes_have_no_bound(full: Callable[..., Any]) -> Any:
    return property(lambda self: False)


def _drops_are_forgotten_with_their_subscription(unsubscribe: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Events, session: Session, packet: p.Unsubscribe) -> list[Outbox]:
        dropped = session.losses.events
        freed: list[Outbox] = unsubscribe(self, session, packet)
        session.losses.events = dropped
        return freed

    return mutated


def _somebody_else_has_to_go(heaviest: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(sessions: Iterable[Session], backlog: Backlog) -> tuple[int, Session | None]:
        found = [heaviest([each], backlog) for each in sessions]
        worst: tuple[int, Session | None] = min((each for each in found if each[0]), key=_weight, default=(0, None))
        return worst

    return mutated


def _weight(found: tuple[int, Session | None]) -> int:
    return found[0]


def _member_that_leaves_takes_events_with_it(remove: Callable[..., Any]) -> Callable[..., Any]:
    async def mutated(self: Inlets[Any], number: int) -> None:
        self._inlets.pop(number, None)
        await remove(self, number)

    return mutated


def _what_an_iterator_filters_keeps_its_credit(passes: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Subscription, event: Event) -> bool:
        passed: bool = passes(self, event)
        if not passed and self.workers is None:
            event.epoch = -1
        return passed

    return mutated


MUTANTS: dict[str, tuple[Any, str, Mutant]] = {
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
    "a process is kept out by its old session": (Peers, "same_process", _process_is_kept_out_by_its_old_session),
    "publishers do not wait": (Events, "_owe", _publishers_do_not_wait),
    "lanes have no bound": (Lane, "full", _lanes_have_no_bound),
    "drops are forgotten with their subscription": (
        Events,
        "unsubscribe",
        _drops_are_forgotten_with_their_subscription,
    ),
    "somebody else has to go": (router, "heaviest", _somebody_else_has_to_go),
    "a member that leaves takes events with it": (Inlets, "remove", _member_that_leaves_takes_events_with_it),
    "what an iterator filters keeps its credit": (
        Subscription,
        "_passes",
        _what_an_iterator_filters_keeps_its_credit,
    ),
    **REQUEST_MUTANTS,
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
