"""The router: every decision of the bus, and nothing else.

Pure: time comes in as an argument, traffic for peers lands in outboxes that the edge drains, everything rarer is a
value in `notices`. One caller at a time; whoever drives it owns it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from msgspec import Struct

from broker.core.admission import Admission
from broker.core.backlog import Backlog
from broker.core.events import Events
from broker.core.notices import Notice, PeerMisbehaved, RegistrationRefused, SessionLost
from broker.core.observer import Burst, Observed, Observer
from broker.core.opening import already_registered, duplicate_name, make_session, opened, welcome
from broker.core.peers import Peers
from broker.core.requests import Requests
from broker.core.sessions import Identity, Origin, Session
from broker.core.slow import LOOK_SECS, SlowConsumers, heaviest
from broker.core.snapshot import Snapshot, view_session
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, encode, encode_frame
from plugin_sdk.wire.errors import BusError, RemoteProtocolError
from plugin_sdk.wire.limits import DEFAULT_LIMITS, Limits
from plugin_sdk.wire.outbox import Outbox

_STRANGER = Origin("unknown")


class Router:
    """All sessions and what goes on between them.

    Args:
        limits: every bound.
        heartbeat: seconds after which a silent peer is pinged.
        numbers: makes session numbers nobody can guess; a seeded one makes a run repeatable.
        uids: users admitted over ipc; empty admits any.
        seed: where queue groups begin to rotate.
    """

    requests_type: type[Requests] = Requests

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        *,
        heartbeat: float = 5.0,
        numbers: Callable[[], int] | None = None,
        uids: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:
        self.limits = limits
        self.heartbeat = heartbeat
        self.admission = Admission(uids)
        self.backlog = Backlog(limits.total_bytes)
        self.events = Events(limits, self.backlog, seed)
        self.requests = self.requests_type(limits, self.backlog)
        self._peers = Peers()
        # Every frame asks for its session here.
        self._sessions = self._peers.by_address
        self.slow = SlowConsumers(limits.event_credit, self._peers.behind)
        self.observer = Observer()
        self.notices: list[Notice] = []
        self.dirty: list[Outbox] = []
        self.strays: list[tuple[bytes, bytes]] = []
        self._numbers = numbers or _seeded(seed)
        self._next_check: float | None = None
        self._next_look: float | None = None
        self._counters = {"frames": 0, "packets": 0, "garbage": 0, "refused": 0, "stray": 0}
        self._published_before = 0
        self._burst: Burst = self.events.burst
        self._handlers: dict[type[Struct], Callable[[Session, Any, float], None]] = {
            p.Credit: self._on_credit,
            p.Call: self._on_call,
            p.Reply: self.requests.reply,
            p.Chunk: self.requests.chunk,
            p.Error: self._on_error,
            p.Cancel: lambda session, packet, now: self.requests.cancel(session, packet.ref, now),
            p.Subscribe: lambda session, packet, now: self.events.subscribe(session, packet),
            p.Unsubscribe: lambda session, packet, now: self._pay(self.events.unsubscribe(session, packet)),
            p.Serve: lambda session, packet, now: self.requests.serve(session, packet, now),
            p.Withdraw: lambda session, packet, now: self.requests.withdraw(session, packet, now),
            p.Ping: self._on_ping,
            p.Pong: lambda session, packet, now: None,
            p.Goodbye: self._on_goodbye,
            p.Register: self._on_register,
            p.Unknown: self._on_unknown,
        }

    def knows(self, peer: bytes) -> bool:
        """Whether `peer` is registered; the edge asks for its origin only when it is not."""
        return peer in self._sessions

    def receive(self, peer: bytes, frame: bytes, now: float, origin: Origin = _STRANGER) -> None:
        """Take one frame, untrusted, from a peer.

        Args:
            peer: the transport's address of the sender.
            frame: what it sent.
            now: seconds of a monotonic clock.
            origin: what the transport knows of an unregistered sender.
        """
        self._counters["frames"] += 1
        session = self._sessions.get(peer)
        try:
            number, packets = decode_frame(frame, self.limits)
        except RemoteProtocolError as error:
            self._garbage(peer, session, error)
            return
        if session is None or number != session.number:
            self._receive_stranger(peer, session, packets, now, origin)
            return
        session.last_seen = now
        self._counters["packets"] += len(packets)
        if self._act(session, packets, now):
            self._grant(session)
        backlog = self.backlog
        if self.events.slow or backlog.size > backlog.limit:
            self._end_slow(now)

    def peer_lost(self, peer: bytes, now: float, text: str = "the connection is gone") -> None:
        """The transport cannot reach this peer any more."""
        session = self._sessions.get(peer)
        if session is not None:
            self._remove(session, "lost", text, now)
            self._end_slow(now)

    def hold_back(self, outbox: Outbox, now: float) -> bool:
        """The transport takes no more from this outbox now; returns whether what is left may wait in it."""
        session = self._peers.behind(outbox)
        if session is None:
            return False
        if outbox.pending_bytes > self.limits.outbox_bytes:
            self.peer_lost(session.peer, now, "it does not read what is sent to it")
            return False
        self.backlog.report(outbox)
        self._end_slow(now)
        return self._peers.behind(outbox) is not None

    def close(self, number: int, code: str, text: str, now: float) -> None:
        """End a session from this side, telling its peer why."""
        session = self._peers.by_number.get(number)
        if session is not None:
            self.strays.append((session.peer, encode_frame(number, [p.Goodbye(code, text)])))
            self._remove(session, code, text, now)

    def session(self, number: int) -> Session | None:
        """The record of an open session, for reading."""
        return self._peers.by_number.get(number)

    def plugin_session(self, name: str) -> int | None:
        """Number of the session registered as plugin `name`, of any instance."""
        session = self._peers.plugin(name)
        return session.number if session is not None else None

    def switch(self, joining: int | None, leaving: int | None, now: float) -> None:
        """Put one session into routing and take another one out, in one step: nothing falls in between.

        The one that leaves finishes what it has, and keeps its name unless the other one has taken it.

        Args:
            joining: number of a session that is not routed; None for none.
            leaving: number of one that is; None for none.
            now: seconds of the router's clock.
        """
        new, old = self.session(joining or 0), self.session(leaving or 0)
        if new is not None and not new.routed:
            self._set_routed(new, True)
            self.events.enter(new)
            self.requests.enter(new, now)
        if old is not None and old.routed:
            self._set_routed(old, False)
            self.events.leave(old)
            self.requests.leave(old, now)
        if new is not None:
            self._peers.hand_over(new, old)
        self._end_slow(now)

    def listeners(self, subject: str) -> set[str]:
        """The names of those whose subscriptions cover a subject."""
        peers = self.events.listening(subject)
        return {session.name for peer in peers if (session := self._sessions.get(peer)) is not None}

    def drain(self) -> None:
        """Admit nobody and begin no request of plugins any more; what runs may finish."""
        self.admission.closed = True
        self.requests.draining = True

    def in_flight(self) -> int:
        """Requests between plugins and clients that have not ended; the broker's own do not count."""
        return sum(self.requests.running().values())

    def end_requests(self, text: str, now: float) -> None:
        """End those requests, telling their callers that the broker is `shutting_down` and what else `text` says."""
        self.requests.abandon(text, now)

    def say_goodbye(self, code: str, text: str) -> None:
        """Tell every peer that the broker closes all sessions."""
        for session in self._sessions.values():
            session.outbox.add(encode(p.Goodbye(code, text)))

    def observe(self, now: float, secs: float) -> None:
        """Learn who publishes and calls what, for `secs` seconds from now at least; see `observer`."""
        self.observer.begin(now, now + secs)
        self._burst = self.observer.noting_events(self.events.burst)
        self._handlers[p.Call] = self.observer.noting_calls(self._on_call)

    def observed(self, now: float) -> Observed:
        """What is known of who publishes and calls what."""
        return self.observer.seen(now, self._sessions.values())

    def tick(self, now: float) -> None:
        """Do what is due: deadlines, pings to silent peers, a look at those who do not keep up."""
        self.requests.expire(now)
        if self._next_check is not None and now >= self._next_check:
            self._ping_silent(now)
        if self._next_look is None:
            if self.events.strained or self.backlog.stuck:
                self._next_look = now + LOOK_SECS
        elif now >= self._next_look:
            self._look_for_slow(now)

    def next_deadline(self) -> float | None:
        """When `tick` next has something to do, in the clock of `now`, or None."""
        due = (self.requests.next_deadline(), self._next_check, self._next_look)
        times = [when for when in due if when is not None]
        return min(times) if times else None

    def snapshot(self, now: float) -> Snapshot:
        """A frozen view of everything."""
        sessions = tuple(view_session(each, now) for each in self._sessions.values())
        counters = {
            **self._counters,
            "events_published": self._published_before + sum(each.published for each in sessions),
            "events_dropped": self.events.dropped,
            "slow_consumers": self.slow.count,
            "late_replies": self.requests.late,
            "retained_evicted": self.events.retained.evicted,
            **{f"requests_{outcome}": number for outcome, number in self.requests.outcomes.items()},
        }
        return Snapshot(
            sessions=sessions,
            slow=tuple(self.slow.views(now)),
            requests=len(self.requests),
            queued=sum(len(service.waiting) for service in self.requests.services),
            retained=len(self.events.retained),
            waiting_bytes=self.backlog.size,
            max_waiting_bytes=self.backlog.limit,
            counters=counters,
        )

    def _act(self, session: Session, packets: list[Any], now: float) -> bool:
        """Act on every packet of a frame; returns whether the session still stands afterwards."""
        handlers, burst = self._handlers, self._burst
        position, end = 0, len(packets)
        while position < end:
            packet = packets[position]
            try:
                if type(packet) is p.Publish:
                    position += burst(session, packets, position)
                    continue
                position += 1
                handler = handlers.get(type(packet))
                if handler is None:
                    raise BusError("bad_packet", f"{type(packet).__name__} is not for the broker")
                handler(session, packet, now)
            except BusError as error:
                position += type(packet) is p.Publish
                self._refuse_packet(session, packet, error)
            if session.peer not in self._sessions:
                return False
        return True

    def _receive_stranger(
        self, peer: bytes, session: Session | None, packets: list[Any], now: float, origin: Origin
    ) -> None:
        """A frame that carries no session number of its sender: only REGISTER makes sense."""
        if len(packets) != 1 or type(packets[0]) is not p.Register:
            self._counters["stray"] += 1
            text = "this session is unknown: register (again), then send frames under the number you are given"
            self._refuse(peer, BusError("unknown_session", text))
            return
        register = packets[0]
        if session is not None:
            self._register_again(session, register)
            return
        try:
            version, identity = self.admission.admit(register, origin)
            self._check_unique(register, identity, now)
        except BusError as error:
            self._counters["refused"] += 1
            self._refuse(peer, error)
            pid, token = origin.pid, register.token or ""
            refused = RegistrationRefused(register.name, error.code, error.text, pid, origin.transport, token)
            self.notices.append(refused)
            return
        self._open(peer, register, version, identity, origin, now)

    def _register_again(self, session: Session, register: p.Register) -> None:
        """A retry whose first answer was late is answered the same; anything else is refused, the session unharmed."""
        if (register.nonce, register.name) == (session.nonce, session.name):
            session.outbox.add(encode(self._welcome(session)))
            return
        self._refuse(session.peer, already_registered(session))

    def _check_unique(self, register: p.Register, identity: Identity, now: float) -> None:
        if register.role != "plugin":
            return
        for session in list(self._peers.same_process(identity.name, register.instance, register.nonce)):
            # The same process over a new connection: its old session cannot be alive.
            self._remove(session, "replaced", "the process registered again over a new connection", now)
        holder = self._peers.holder(identity.name, register.instance, routed=identity.routed)
        if holder is not None:
            # The transport tells that a peer is gone only when something is sent to it: the next attempt then succeeds.
            holder.outbox.add(encode(p.Ping(0)))
            raise duplicate_name(holder)

    def _open(
        self, peer: bytes, register: p.Register, version: int, identity: Identity, origin: Origin, now: float
    ) -> None:
        number, limits = self._numbers(), self.limits
        outbox = Outbox(peer, number, limits.event_credit, limits.publish_credit, self.dirty)
        session = make_session(number, register, version, identity, origin, outbox, now)
        self._peers.add(session)
        # Strays go out after all outboxes; what this peer was told before must reach it before this.
        for frame in [frame for stray, frame in self.strays if stray == peer]:
            outbox.add_frame(frame)
        self.strays = [each for each in self.strays if each[0] != peer]
        outbox.add(encode(self._welcome(session)))
        if self._next_check is None:
            self._next_check = now + self.heartbeat
        self.notices.append(opened(session))

    def _welcome(self, session: Session) -> p.Registered:
        return welcome(session, self.limits, self.heartbeat)

    def _set_routed(self, session: Session, routed: bool) -> None:
        session.routed = routed
        self.admission.set_routed(session.token, routed)

    def _on_credit(self, session: Session, packet: p.Credit, now: float) -> None:
        if packet.stream:
            self.requests.chunk_credit(session, packet.stream, packet.amount)
            return
        self._pay(self.events.credit(session, packet.amount))

    def _on_call(self, session: Session, packet: p.Call, now: float) -> None:
        target = packet.options.get("to") if packet.options else None
        addressed = None
        if target is not None:
            addressed = self._peers.by_number.get(target) if type(target) is int else None
            if addressed is None or not (session.identity.local or session.identity.operator):
                raise BusError("unavailable", f"there is no session {target!r:.60} that this peer may address")
        self.requests.call(session, packet, now, addressed)

    def _on_error(self, session: Session, packet: p.Error, now: float) -> None:
        if packet.ref:
            self.requests.fail(session, packet, now)
        else:
            session.errors += 1

    def _on_ping(self, session: Session, packet: p.Ping, now: float) -> None:
        session.stats = packet.stats
        session.outbox.add(encode(p.Pong(packet.number)))

    def _on_goodbye(self, session: Session, packet: p.Goodbye, now: float) -> None:
        self._remove(session, "goodbye", packet.text or packet.code, now)

    def _on_register(self, session: Session, packet: p.Register, now: float) -> None:
        raise already_registered(session)

    def _on_unknown(self, session: Session, packet: p.Unknown, now: float) -> None:
        raise BusError("unsupported", f"packet kind {packet.kind} is unknown to protocol version 1")

    def _refuse_packet(self, session: Session, packet: Any, error: BusError) -> None:
        session.errors += 1
        ref = packet.ref if isinstance(packet, (p.Subscribe, p.Unsubscribe, p.Serve, p.Withdraw, p.Call)) else 0
        if type(packet) is p.Call and ref in session.calls:
            ref = 0  # the refused one took the ref of a request that is running, and that one has not ended
        session.outbox.add(encode(p.Error(ref, error.code, error.text)))
        if error.code in ("denied", "bad_packet"):
            self.notices.append(PeerMisbehaved(session.name, session.pid, error.code, error.text))

    def _garbage(self, peer: bytes, session: Session | None, error: BusError) -> None:
        self._counters["garbage"] += 1
        if session is None:
            self._refuse(peer, error)
            self.notices.append(PeerMisbehaved("", 0, error.code, error.text))
            return
        session.errors += 1
        session.outbox.add(encode(p.Error(0, error.code, error.text)))
        self.notices.append(PeerMisbehaved(session.name, session.pid, error.code, error.text))

    def _refuse(self, peer: bytes, error: BusError) -> None:
        frame = encode_frame(0, [p.Refused(error.code, error.text, error.retry)])
        session = self._sessions.get(peer)
        if session is not None:
            session.outbox.add_frame(frame)
        else:
            self.strays.append((peer, frame))

    def _grant(self, session: Session) -> None:
        """Give a publisher back the credit of what was routed, in pieces worth a packet."""
        outbox = session.outbox
        if outbox.consumed * 4 >= self.limits.publish_credit:
            outbox.allowance += outbox.consumed
            outbox.add(encode(p.Credit(0, outbox.consumed)))
            outbox.consumed = 0
        elif outbox.allowance < -self.limits.frame_bytes - self.limits.publish_credit:
            self.events.slow[outbox] = "it does not keep to its credit"

    def _pay(self, publishers: list[Outbox]) -> None:
        for outbox in dict.fromkeys(publishers):
            session = self._peers.behind(outbox)
            if session is not None:
                self._grant(session)

    def _end_slow(self, now: float) -> None:
        slow, backlog = self.events.slow, self.backlog
        while slow or backlog.size > backlog.limit:  # the end of one session may show that another one is slow
            if not slow:
                if not self._make_room(now):
                    return
                continue
            outbox, text = slow.popitem()
            session = self._peers.behind(outbox)
            if session is not None:
                self.close(session.number, "slow_consumer", text, now)

    def _make_room(self, now: float) -> bool:
        """End the session because of which most waits, as there is no room for all; returns whether there was one."""
        weight, worst = heaviest(self._sessions.values(), self.backlog)
        if worst is None:
            return False
        text = (
            f"{weight} bytes wait at the broker because of it, more than because of any other,"
            f" and there is room for {self.backlog.limit} in all"
        )
        self.close(worst.number, "slow_consumer", text, now)
        worst.outbox.discard()
        return True

    def _look_for_slow(self, now: float) -> None:
        self.backlog.refresh()
        self.notices += self.slow.look(self.events.strained, now)
        self._next_look = now + LOOK_SECS if self.slow or self.backlog.stuck else None

    def _end_observation(self) -> None:
        self.observer.end()
        self._burst = self.events.burst
        self._handlers[p.Call] = self._on_call

    def _ping_silent(self, now: float) -> None:
        if self.observer.active and now >= self.observer.until:
            self._end_observation()
        self._next_check = now + self.heartbeat if self._sessions else None
        for session in self._sessions.values():
            if not session.identity.local and now - session.last_seen >= self.heartbeat:
                session.outbox.add(encode(p.Ping(0)))

    def _remove(self, session: Session, code: str, text: str, now: float) -> None:
        self._peers.remove(session)
        waiting = session.waiting
        self._published_before += session.published
        paid = self.events.forget(session)
        self.requests.forget(session, text, now)
        self.backlog.forget(session.outbox)
        self._pay(paid)
        proof = session.identity.proof
        self.notices.append(
            SessionLost(session.number, session.name, session.role, proof, session.pid, code, text, waiting)
        )


def _seeded(seed: int) -> Callable[[], int]:
    """Session numbers that repeat: for tests and simulation; the edge passes in unpredictable ones."""
    random = Random(seed)
    return lambda: random.getrandbits(62) + 1
