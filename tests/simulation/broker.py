"""The broker: the real router behind the real edge, on a socket that is made of simulated connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, cast

import zmq

from broker.core.notices import Notice
from broker.core.router import Router
from broker.core.sessions import Identity, Origin, Session
from broker.edge.server import Edge
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import Limits
from plugin_sdk.wire.outbox import Outbox
from tests.simulation.audit import Audit
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Network, Port

KEY = "key of the simulation"
HEARTBEAT = 2.0
NARROW = Limits(
    frame_bytes=64 * 1024,
    pending_requests=5,
    queued_requests=3,
    event_credit=2_000,
    publish_credit=1_500,
    chunk_credit=4,
    backlog_bytes=1_500,
    backlog_events=8,
    outbox_bytes=40_000,
    total_bytes=4_000,
    cached_subjects=3,
)
# Frames that are full, and several of them on their way.
WIDE = replace(
    NARROW,
    event_credit=400_000,
    publish_credit=200_000,
    backlog_bytes=50_000,
    outbox_bytes=400_000,
    total_bytes=200_000,
)

_EHOSTUNREACH = int(zmq.EHOSTUNREACH)
_SNDMORE, _EVENTS, _POLLIN = int(zmq.SNDMORE), int(zmq.EVENTS), int(zmq.POLLIN)
_AGAIN = zmq.Again()  # made once: it looks up the text of its number
_ORIGIN = Origin("simulation")
_descriptors = count(1)


class _Part:
    """A received frame as pyzmq hands it over, without metadata."""

    def __init__(self, data: bytes) -> None:
        self.bytes = data

    def get(self, name: str) -> str:
        """What the transport knows: nothing."""
        return ""


class RouterSocket:
    """What the edge uses of a ROUTER socket, over the connections of a port."""

    def __init__(self, loop: VirtualLoop, audit: Audit) -> None:
        self.port = Port(self._on_frame)
        self._loop = loop
        self._audit = audit
        self._descriptor = next(_descriptors)
        self._signalled = False
        self._body: bytes | None = None
        self._to = b""

    def fileno(self) -> int:
        """A number under which the edge's reader is known to the loop."""
        return self._descriptor

    def recv(self, flags: int, copy: bool = True) -> Any:
        """The address of a peer, then its frame; raises zmq.Again when nothing has come."""
        if self._body is not None:
            body, self._body = self._body, None
            return body if copy else _Part(body)
        if not self.port.inbox:
            raise _AGAIN.with_traceback(None)
        address, self._body = self.port.inbox.popleft()
        return address

    def send(self, data: bytes, flags: int) -> None:
        """The address of a peer, then a frame; raises zmq.Again when it is full, ZMQError when it is gone."""
        if flags & _SNDMORE:
            self._to = data
            return
        connection = self.port.connections.get(self._to)
        if connection is None:
            # ZeroMQ says so at the address already; the edge does not mind, and here the lost frame can be seen.
            self._audit.lost(self._to, data)
            raise zmq.ZMQError(_EHOSTUNREACH)
        if not connection.down.offer(data):
            raise _AGAIN.with_traceback(None)
        self._audit.sent(self._to, data)

    def getsockopt(self, option: int) -> int:
        """EVENTS and RCVMORE."""
        return _POLLIN if option == _EVENTS and self.port.inbox else 0

    def close(self, linger: int = 0) -> None:
        """The edge closes it in order; the simulation never does."""

    def _on_frame(self) -> None:
        # As the descriptor of ZeroMQ: told at least once, and no more than that.
        if not self._signalled:
            self._signalled = True
            self._loop.call_soon(self._signal)

    def _signal(self) -> None:
        self._signalled = False
        reader = self._loop.readers.get(self._descriptor)
        if reader is not None:
            reader()


class AuditedRouter(Router):
    """The router, with an auditor who looks at its work and touches nothing."""

    def __init__(self, audit: Audit, limits: Limits, seed: int) -> None:
        super().__init__(limits, heartbeat=HEARTBEAT, seed=seed)
        self.audit = audit
        self._handlers[p.Subscribe] = self._on_subscribe

    def receive(self, peer: bytes, frame: bytes, now: float, origin: Origin = _ORIGIN) -> None:
        """Take a frame, then let the auditor judge what became of it."""
        before = self._sessions.get(peer)
        super().receive(peer, frame, now, origin)
        after = self._sessions.get(peer)
        self.audit.took(before, after, frame, now)
        self.audit.check_backlog(self.backlog, self._sessions.values())
        self.audit.check_services(self.requests.services)

    def peer_lost(self, peer: bytes, now: float, text: str = "") -> None:
        """A peer is gone, and its account is closed."""
        super().peer_lost(peer, now, text)
        self.audit.close_ended()

    def hold_back(self, outbox: Outbox, now: float) -> bool:
        """A peer does not read, for which it may lose its session, or another one."""
        may_wait = super().hold_back(outbox, now)
        self.audit.close_ended()
        self.audit.check_backlog(self.backlog, self._sessions.values())
        return may_wait

    def tick(self, now: float) -> None:
        """Do what is due, which must not be overdue."""
        self.audit.check_deadlines(self.requests, now)
        self.audit.check_slow(self.events._indebted, now)
        super().tick(now)

    def _on_subscribe(self, session: Session, packet: p.Subscribe, now: float) -> None:
        self.events.subscribe(session, packet)
        self.audit.made(session, session.subscriptions[packet.ref])

    def _check_unique(self, register: p.Register, identity: Identity, now: float) -> None:
        """A process is never kept out by a session of its own."""
        try:
            super()._check_unique(register, identity, now)
        except BusError:
            if any(each.nonce == register.nonce for each in self._sessions.values()):
                self.audit.blame(f"{register.nonce} is kept out by its own old session")
            raise

    def _make_room(self, now: float) -> bool:
        """Who has to go is the one because of which most waits."""
        stuck = self.backlog.stuck
        weights = {each: each.waiting_bytes + each.held + stuck.get(each.outbox, 0) for each in self._standing()}
        made = super()._make_room(now)
        gone = weights.keys() - self._standing()
        if gone and max(weights[each] for each in gone) < max(weights.values()):
            self.audit.blame("who had to go was not the one because of which most waited")
        return made

    def _standing(self) -> set[Session]:
        return set(self._sessions.values())

    def _remove(self, session: Session, code: str, text: str, now: float) -> None:
        self.audit.ends(session)
        super()._remove(session, code, text, now)
        self.audit.check_nobody_waits_for(session, self.requests)


class SimulatedEdge(Edge):
    """The edge, on a simulated socket."""

    def __init__(
        self, router: AuditedRouter, socket: RouterSocket, on_notices: Callable[[list[Notice]], None], loop: VirtualLoop
    ) -> None:
        self._simulated = socket
        super().__init__(router, on_notices, loop.time)

    def kill(self) -> None:
        """End as a killed process does."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        self._context.term()

    def _make_socket(self) -> zmq.Socket[bytes]:
        return cast("zmq.Socket[bytes]", self._simulated)


class Broker:
    """A broker that can be killed and started again, without any memory.

    Args:
        loop: the clock.
        network: where it listens.
        audit: judges what it does.
        on_notices: told what its router reports.
        seed: of session numbers and queue groups.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        audit: Audit,
        on_notices: Callable[[list[Notice]], None],
        seed: int,
    ) -> None:
        self._loop = loop
        self._network = network
        self._audit = audit
        self._on_notices = on_notices
        self._seed = seed
        self._limits = NARROW if seed % 4 else WIDE
        self._edge: SimulatedEdge | None = None
        self.router = self._make_router()

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self._edge is not None

    def start(self) -> None:
        """Run, knowing nobody."""
        socket = RouterSocket(self._loop, self._audit)
        self.router = self._make_router()
        self.router.admission.set_keys({KEY: "operator"})
        self._audit.begin()
        self._edge = SimulatedEdge(self.router, socket, self._on_notices, self._loop)
        self._edge.start()
        self._network.port = socket.port

    def kill(self) -> None:
        """End at once; connections break when the network says so."""
        if self._edge is not None:
            self._edge.kill()
            self._edge = None
        if self._network.port is not None:
            self._network.port.open = False

    def _make_router(self) -> AuditedRouter:
        self._seed += 1
        return AuditedRouter(self._audit, self._limits, self._seed)
