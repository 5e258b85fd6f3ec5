"""Requests between peers: one record each, and exactly one outcome for the caller.

A record ends by reply, error, cancel, deadline, loss of either side or drain, and is always removed before anything is
sent. An answer to a request that has ended already is counted, never an error: the callee cannot have known.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

from msgspec import Raw

from broker.core.backlog import Backlog
from broker.core.permissions import check_may_call, check_may_serve
from broker.core.services import Service, Services
from broker.core.sessions import Instance, Pending, Session
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode
from plugin_sdk.wire.deadlines import Deadlines
from plugin_sdk.wire.errors import REGISTRY, BusError
from plugin_sdk.wire.limits import MAX_INFO_ITEMS, Limits
from plugin_sdk.wire.subjects import check_subject, is_reserved

_SENT = Raw(b"")


class Requests:
    """The table of requests, and the services they go to."""

    def __init__(self, limits: Limits, backlog: Backlog) -> None:
        self._limits = limits
        self._backlog = backlog
        self._ids = count(1)
        self._pending: dict[int, Pending] = {}
        self._deadlines = Deadlines()
        self.services = Services(backlog)
        self.draining = False
        self.late = 0
        self.outcomes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def running(self) -> dict[str, int]:
        """How many requests between plugins and clients have not ended, by service; the broker's own do not count."""
        return Counter(pending.service for pending in self._pending.values() if _between_peers(pending))

    def abandon(self, text: str, now: float) -> None:
        """End all of these, because the broker stops."""
        # Waiting ones first, or they would be given the room of those that run.
        for pending in sorted(filter(_between_peers, self._pending.values()), key=_runs):
            self._cancel_callee(pending)
            self._finish(pending, "shutting_down", text, now)

    def serve(self, session: Session, packet: p.Serve, now: float) -> None:
        """Register a service of this session; raises BusError when it is refused."""
        name = check_subject(packet.service)
        check_may_serve(session, name, self.services.holder(name))
        if name in session.instances:
            raise BusError("bad_packet", f"service {name!r} is served by this session already")
        if len(session.instances) >= self._limits.services:
            raise BusError("limit", f"this session serves {self._limits.services} services, the most allowed")
        limit = packet.options.get("concurrency", self._limits.pending_requests)
        if type(limit) is not int or limit < 1:
            raise BusError("bad_packet", f"concurrency of service {name!r} is {limit!r:.60}: use 1 or more")
        # What a service that was withdrawn before still runs counts towards its limit.
        instance = session.withdrawn.pop(name, None) or Instance(session, limit)
        instance.limit, instance.disclose = limit, packet.options.get("caller") is True
        session.instances[name] = instance
        session.outbox.add(encode(p.Ok(packet.ref)))
        if session.routed:
            self._dispatch(self.services.add(name, instance), now)

    def enter(self, session: Session, now: float) -> None:
        """Put the services of a session into force."""
        for name, instance in session.instances.items():
            self._dispatch(self.services.add(name, instance), now)

    def leave(self, session: Session, now: float) -> None:
        """Give no more requests to a session; those that run may still be answered."""
        for name, instance in session.instances.items():
            self._remove_instance(name, instance, now)

    def withdraw(self, session: Session, packet: p.Withdraw, now: float) -> None:
        """Take a service away; requests that run already may still be answered."""
        instance = session.instances.pop(packet.service, None)
        if instance is None:
            raise BusError("bad_packet", f"service {packet.service!r} is not served by this session")
        session.withdrawn[packet.service] = instance
        session.withdrawn = {name: each for name, each in session.withdrawn.items() if each.outstanding}
        self._remove_instance(packet.service, instance, now)
        session.outbox.add(encode(p.Ok(packet.ref)))

    def call(self, session: Session, packet: p.Call, now: float, addressed: Session | None) -> None:
        """Begin a request; raises BusError when it ends before it began.

        Args:
            session: the caller.
            packet: what it sent.
            now: the time, in seconds of the router's clock.
            addressed: the one session it must go to, when the caller named one.
        """
        service = self.services.get(packet.service)
        if service is None:
            check_subject(packet.service)
        wait = self._admit_call(session, packet)
        pending = self._begin(session, packet, now, wait)
        if addressed is not None:
            self._send(pending, addressed.instances.get(packet.service) or Instance(addressed, 1), now)
            return
        if service is None or not service.instances:
            if not wait:
                self._finish(pending, "unavailable", f"no plugin serves {pending.service!r}", now)
                return
            service = service or self.services.obtain(pending.service)
        instance = service.choose()
        if instance is None:
            self._queue(service, pending, now)
        else:
            self._send(pending, instance, now)

    def reply(self, session: Session, packet: p.Reply, now: float) -> None:
        """A callee has answered."""
        pending = session.serving.get(packet.ref)
        if pending is None:
            self.late += 1
            return
        caller, ref = pending.caller, pending.ref
        self._end(pending, "reply", now)
        caller.outbox.add(encode(p.Reply(ref, packet.payload)))

    def fail(self, session: Session, packet: p.Error, now: float) -> None:
        """A callee has answered with an error."""
        pending = session.serving.get(packet.ref)
        if pending is None:
            self.late += 1
            return
        self._finish(pending, packet.code, packet.text, now, packet.details)

    def chunk(self, session: Session, packet: p.Chunk, now: float) -> None:
        """A callee sends a piece of a streamed reply."""
        pending = session.serving.get(packet.ref)
        if pending is None:
            self.late += 1
            return
        pending.chunks -= 1
        if pending.chunks < 0:
            self._cancel_callee(pending)
            text = f"the instance of {pending.service!r} sent more chunks than its credit"
            self._finish(pending, "limit", text, now)
            return
        pending.caller.outbox.add(encode(p.Chunk(pending.ref, packet.payload)))

    def chunk_credit(self, session: Session, ref: int, amount: int) -> None:
        """A caller can take more chunks."""
        pending = session.calls.get(ref)
        if pending is None or pending.instance is None:
            return
        allowed = min(amount, 4 * self._limits.chunk_credit - pending.chunks)
        if allowed > 0:
            pending.chunks += allowed
            pending.instance.session.outbox.add(encode(p.Credit(pending.id, allowed)))

    def cancel(self, session: Session, ref: int, now: float) -> None:
        """A caller has lost interest; unknown refs are late cancels of requests that have just ended."""
        pending = session.calls.get(ref)
        if pending is None:
            self.late += 1
            return
        self._cancel_callee(pending)
        self._finish(pending, "cancelled", "cancelled by the caller", now)

    def expire(self, now: float) -> None:
        """End every request whose time is over."""
        due = [self._pending[request] for request in self._deadlines.expire(now)]
        # Waiting ones first, or they would be given the room of those that run and be handed out too late.
        for pending in sorted(due, key=_runs):
            self._expire_one(pending, now)

    def next_deadline(self) -> float | None:
        """When `expire` next has something to do."""
        return self._deadlines.next()

    def forget(self, session: Session, reason: str, now: float) -> None:
        """End everything that a lost session was part of."""
        # First of all nothing new may go to it, or room that the rest makes would be given to the lost session.
        for name, instance in list(session.instances.items()):
            del session.instances[name]
            self._remove_instance(name, instance, now)
        # Its waiting ones before its running ones, or those would be given the room and run for nobody.
        for pending in sorted(session.calls.values(), key=_runs):
            self._cancel_callee(pending)
            self._end(pending, "caller_lost", now)
        for pending in list(session.serving.values()):
            self._finish(pending, "lost", f"{session.name} went away before it answered: {reason}", now)

    def _admit_call(self, session: Session, packet: p.Call) -> float:
        """Check a CALL; returns how many seconds it may wait for its service."""
        if packet.ref == 0:
            raise BusError("bad_packet", "ref 0 stands for no request: use 1 or more")
        if packet.ref in session.calls:
            raise BusError("bad_packet", f"request {packet.ref} of this session is still running")
        # Asked only where it can say no: nearly every service may be called by nearly everybody.
        if session.may_call is not None or packet.service[0] == "$":
            check_may_call(session, packet.service)
        if self.draining and not (session.identity.local or session.serving or is_reserved(packet.service)):
            # A handler in flight, a cleanup too, may still call others: it could not finish otherwise. The operator
            # may ask how things stand, but is refused everything else: hand-started plugins show the same key.
            raise BusError("shutting_down", "the broker is shutting down and takes no new requests")
        if len(session.calls) >= self._limits.pending_requests:
            text = f"this session has {self._limits.pending_requests} requests pending, the most allowed"
            raise BusError("limit", text)
        if not 0 < packet.timeout_ms <= self._limits.timeout_ms:
            raise BusError("bad_packet", f"timeout is {packet.timeout_ms} ms: use 1 to {self._limits.timeout_ms}")
        options = packet.options
        if options is None:
            return 0.0
        if len(options) >= MAX_INFO_ITEMS:
            raise BusError(
                "bad_packet", f"{len(options)} options: use {MAX_INFO_ITEMS - 1} at most, the broker adds one"
            )
        wait = options.get("wait_ready_ms", 0)
        if type(wait) is not int or wait < 0:
            raise BusError("bad_packet", f"wait_ready_ms is {wait!r:.60}: use a whole number of milliseconds")
        return min(wait, packet.timeout_ms) / 1000

    def _begin(self, session: Session, packet: p.Call, now: float, wait: float) -> Pending:
        deadline = now + packet.timeout_ms / 1000
        give_up = now + wait
        request = next(self._ids)
        slot = self._deadlines.add(request, give_up if wait else deadline)
        pending = Pending(
            request,
            session,
            packet.ref,
            packet.service,
            packet.payload,
            deadline,
            slot,
            packet.options,
            give_up,
        )
        self._pending[request] = session.calls[packet.ref] = pending
        return pending

    def _queue(self, service: Service, pending: Pending, now: float) -> None:
        if len(service.waiting) >= self._limits.queued_requests:
            text = f"{len(service.waiting)} requests wait for {pending.service!r} already"
            self._finish(pending, "busy", text, now)
        elif pending.caller.held >= self._limits.backlog_bytes:
            text = f"{pending.caller.held} bytes of requests of this session wait for room already"
            self._finish(pending, "busy", text, now)
        elif not self._backlog.takes(len(memoryview(pending.payload))):
            text = (
                f"{self._backlog.size} bytes wait at the broker for all peers together, which is what it has room for"
            )
            self._finish(pending, "busy", text, now)
        else:
            service.enqueue(pending)

    def _send(self, pending: Pending, instance: Instance, now: float) -> None:
        pending.instance = instance
        instance.outstanding += 1
        instance.served += 1
        callee = instance.session
        callee.serving[pending.id] = pending
        options = pending.options
        if options is not None or instance.disclose:
            options = _options_for(pending, instance)
            if options is not None and options.get("stream") is True:
                pending.chunks = self._limits.chunk_credit
        left = max(1, round((pending.deadline - now) * 1000))
        callee.outbox.add(encode(p.Request(pending.id, pending.service, pending.payload, left, options)))
        pending.payload = _SENT

    def _dispatch(self, service: Service, now: float) -> None:
        """Give waiting requests to instances with room."""
        while service.waiting and service.instances:
            instance = service.choose()
            if instance is None:
                return
            self._send(service.dequeue(), instance, now)

    def _remove_instance(self, name: str, instance: Instance, now: float) -> None:
        service = self.services.remove(name, instance)
        if service is None:
            return
        if not service.instances:
            for pending in list(service.waiting.values()):
                if pending.give_up <= now:
                    self._finish(pending, "unavailable", f"the last instance of {name!r} went away", now)
        self.services.prune(service)

    def _expire_one(self, pending: Pending, now: float) -> None:
        service = self.services.get(pending.service)
        served = pending.instance is not None or (service is not None and bool(service.instances))
        if served and pending.deadline > now:
            # Only the time to wait for a service is over; there is one, so the deadline is what remains.
            pending.slot = self._deadlines.add(pending.id, pending.deadline)
            return
        self._cancel_callee(pending)
        if not served:
            text = f"no plugin served {pending.service!r} in the time that it could wait"
            self._finish(pending, "unavailable", text, now)
        elif pending.instance is None:
            self._finish(pending, "timeout", f"no instance of {pending.service!r} had room in time", now)
        else:
            text = f"{pending.instance.session.name} did not answer {pending.service!r} in time"
            self._finish(pending, "timeout", text, now)

    def _cancel_callee(self, pending: Pending) -> None:
        if pending.instance is not None:
            pending.instance.session.outbox.add(encode(p.Cancel(pending.id)))

    def _finish(self, pending: Pending, code: str, text: str, now: float, details: Any = None) -> None:
        """End a request with an error."""
        self._end(pending, code if code in REGISTRY else "failed", now)
        pending.caller.outbox.add(encode(p.Error(pending.ref, code, text, details)))

    def _end(self, pending: Pending, outcome: str, now: float) -> None:
        del self._pending[pending.id]
        del pending.caller.calls[pending.ref]
        self._deadlines.discard(pending.id, pending.slot)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        instance, service = pending.instance, self.services.get(pending.service)
        if instance is not None:
            instance.session.serving.pop(pending.id, None)
            instance.outstanding -= 1
        elif service is not None:
            service.leave(pending)
            self.services.prune(service)
        if service is not None and service.waiting:
            self._dispatch(service, now)


def _between_peers(pending: Pending) -> bool:
    return not (pending.caller.identity.local or is_reserved(pending.service))


def _runs(pending: Pending) -> bool:
    return pending.instance is not None


def _options_for(pending: Pending, instance: Instance) -> dict[str, Any] | None:
    """The options of a REQUEST. Who calls is said by the broker or by nobody."""
    options = pending.options
    if options is not None and "caller" in options:
        options = {key: value for key, value in options.items() if key != "caller"}
    if instance.disclose:
        caller = pending.caller
        who = {"name": caller.name, "session": caller.number, "pid": caller.pid, "role": caller.role}
        options = {**(options or {}), "caller": who}
    return options
