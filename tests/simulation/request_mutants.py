"""Bugs put into requests, streams and the ends of sessions on purpose: the rest of `mutants.MUTANTS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.core.requests import Requests
from broker.core.services import Service
from broker.core.sessions import Instance, Pending, Session
from plugin_sdk.calls import Calls
from plugin_sdk.jobs import Job
from plugin_sdk.peer import Peer
from plugin_sdk.services import Servers
from plugin_sdk.wire import packets as p


def _abandoned_stream_goes_on(drop_stream: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, ref: self._streams.pop(ref, None)


def _cancelled_call_goes_on(original: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Calls, ref: int) -> None:
        pass

    return mutated


def _late_cancel_ends_another_request(cancel: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Requests, session: Session, ref: int, now: float) -> None:
        cancel(self, session, ref if ref in session.calls else min(session.calls, default=ref), now)

    return mutated


def _caller_is_not_told_of(*codes: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def mutate(finish: Callable[..., Any]) -> Callable[..., Any]:
        def mutated(self: Requests, pending: Pending, code: str, text: str, now: float, details: Any = None) -> None:
            if code in codes:
                self._end(pending, code, now)
            else:
                finish(self, pending, code, text, now, details)

        return mutated

    return mutate


def _room_is_given_to_nobody(dispatch: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, service, now: None


def _instances_have_no_limit(choose: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Service) -> Instance | None:
        chosen: Instance | None = choose(self)
        return chosen or next(iter(self.instances), None)

    return mutated


def _patience_is_not_looked_at(expire_one: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Requests, pending: Pending, now: float) -> None:
        if pending.deadline > now:
            pending.slot = self._deadlines.add(pending.id, pending.deadline)
        else:
            expire_one(self, pending, now)

    return mutated


def _chunks_need_no_credit(room: Callable[..., Any]) -> Callable[..., Any]:
    async def mutated(self: Job) -> None:
        """There always is some."""

    return mutated


def _credit_of_a_stream_is_not_passed_on(chunk_credit: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, session, ref, amount: None


def _reply_is_lost_beside_others(answer: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Servers, job: Job, packet: p.Packet) -> None:
        if type(packet) is not p.Reply or len(self._jobs) != 3:
            answer(self, job, packet)

    return mutated


def _silent_broker_is_not_given_up(reconnect: Callable[..., Any]) -> Callable[..., Any]:
    def mutated(self: Peer, reason: str) -> None:
        if "silent" not in reason:
            reconnect(self, reason)

    return mutated


def _last_words_are_not_waited_for(said: Callable[..., Any]) -> Callable[..., Any]:
    async def mutated(self: Peer) -> None:
        """Be gone."""

    return mutated


REQUEST_MUTANTS: dict[str, tuple[Any, str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    "a stream that is abandoned goes on": (Calls, "drop_stream", _abandoned_stream_goes_on),
    "a call that is cancelled goes on": (Calls, "cancel", _cancelled_call_goes_on),
    "a late cancel ends another request": (Requests, "cancel", _late_cancel_ends_another_request),
    "a caller is not told that its time is over": (Requests, "_finish", _caller_is_not_told_of("timeout")),
    "a caller is not told that the callee is lost": (Requests, "_finish", _caller_is_not_told_of("lost")),
    "a caller is not told that nobody serves": (Requests, "_finish", _caller_is_not_told_of("unavailable")),
    "room is given to nobody who waits": (Requests, "_dispatch", _room_is_given_to_nobody),
    "instances have no limit": (Service, "choose", _instances_have_no_limit),
    "how long a request may wait is not looked at": (Requests, "_expire_one", _patience_is_not_looked_at),
    "chunks need no credit": (Job, "room", _chunks_need_no_credit),
    "the credit of a stream is not passed on": (Requests, "chunk_credit", _credit_of_a_stream_is_not_passed_on),
    "a reply is lost while others are in hand": (Servers, "answer", _reply_is_lost_beside_others),
    "a silent broker is not given up": (Peer, "reconnect", _silent_broker_is_not_given_up),
    "last words are not waited for": (Peer, "_said", _last_words_are_not_waited_for),
}
