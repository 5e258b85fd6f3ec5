"""The ROUTER socket and the event loop around the core: it moves bytes and decides nothing.

One asyncio loop owns the socket and the router. Frames are drained in bounded batches, then every outbox is flushed
once: that is one turn, and the reason why a busy bus costs few system calls.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from broker.core.notices import Notice
from broker.core.router import Router
from broker.core.sessions import Origin
from broker.edge.transit import LARGE_FRAME, Transit
from broker.edge.zap import DOMAIN, KeyGate
from plugin_sdk.wire.outbox import Outbox

BATCH = 8  # frames drained before everything is flushed: receivers begin while the broker goes on

# As plain integers: the flag arithmetic of pyzmq's enumerations costs a microsecond each time.
NOBLOCK, SNDMORE, POLLIN = int(zmq.NOBLOCK), int(zmq.SNDMORE), int(zmq.POLLIN)
SNDMORE_NOBLOCK, EVENTS, RCVMORE = SNDMORE | NOBLOCK, int(zmq.EVENTS), int(zmq.RCVMORE)
LAST_WORDS = 1000  # turns after which a busy socket has certainly delivered what a peer that is gone had sent
QUEUED_FRAMES = 128  # twice a window of events in frames of the usual size: so many are not on their way otherwise
READ_AHEAD = 2 * BATCH  # frames read for a peer before its turn comes; what else it has to say it keeps itself
RETRY_SECS = 0.05  # a safety net: the edge-triggered descriptor should have told us earlier
LINGER_SECS = 1.0

# ROUTER addresses have at most 255 bytes, so no remote peer can ever be taken for one inside the process.
_LOCAL = b"in this process ".ljust(256, b".")


@dataclass(frozen=True, slots=True)
class CurveServer:
    """The broker's own CURVE key pair, Z85."""

    public: bytes
    secret: bytes


class AddressUnusable(Exception):
    """An endpoint cannot be bound; the text says which and why."""


class LocalPort:
    """The end of a peer that lives in the broker's own process."""

    def __init__(self, edge: Edge, peer: bytes, on_frame: Callable[[bytes], None]) -> None:
        self._edge = edge
        self.peer = peer
        self.on_frame = on_frame

    def send(self, frame: bytes) -> None:
        """Hand a frame to the router; it is routed in the next turn."""
        self._edge.receive_local(self.peer, frame)


class Edge:
    """The transport of one router.

    Args:
        router: the core, owned by this edge from now on.
        on_notices: told what happened beside traffic, at the end of a turn.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        router: Router,
        on_notices: Callable[[list[Notice]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.router = router
        self._on_notices = on_notices
        self._clock = clock
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._make_socket()
        self._gate: KeyGate | None = None
        self._locals: dict[bytes, LocalPort] = {}
        self._inbox: list[tuple[bytes, bytes]] = []
        self._blocked: dict[Outbox, None] = {}
        self._gone: dict[bytes, int] = {}
        self._transit = Transit()
        self._timer: asyncio.TimerHandle | None = None
        self._turn_planned = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def bind_ipc(self, endpoint: str) -> None:
        """Listen on a local socket; raises AddressUnusable.

        Call it before bind_tcp: the security options of TCP would otherwise apply here too.
        """
        self._bind(endpoint)

    def bind_tcp(self, endpoint: str, keys: CurveServer, clients: dict[str, str]) -> str:
        """Listen on TCP for peers with one of the keys in `clients` (Z85 public key to name).

        Returns:
            The endpoint with the port that was bound.

        Raises:
            AddressUnusable: the address is in use or not ours.
        """
        self._gate = KeyGate(self._context, clients)
        self._gate.start()
        socket = self._socket
        socket.curve_server = True
        socket.curve_secretkey, socket.curve_publickey = keys.secret, keys.public
        socket.zap_domain = DOMAIN.encode()
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        # Only TCP can be half open; ipc learns of a dead peer from the kernel.
        socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15_000)
        self._bind(endpoint)
        return socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def set_tcp_clients(self, clients: dict[str, str]) -> None:
        """Replace the public keys that may connect over TCP."""
        if self._gate is not None:
            self._gate.set_keys(clients)

    @property
    def keys_refused(self) -> int:
        """How many connections over TCP showed a key that nobody is known by."""
        return self._gate.refused if self._gate is not None else 0

    def start(self) -> None:
        """Serve from the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._turn)
        self._plan_turn()

    def attach(self, name: str, on_frame: Callable[[bytes], None]) -> LocalPort:
        """Add a peer of this process; it registers as every other peer does."""
        peer = _LOCAL + name.encode()
        port = self._locals[peer] = LocalPort(self, peer, on_frame)
        return port

    def receive_local(self, peer: bytes, frame: bytes) -> None:
        """Take a frame from a peer of this process."""
        self._inbox.append((peer, frame))
        self._plan_turn()

    def wake(self) -> None:
        """Flush soon: somebody used the router from outside a turn."""
        self._plan_turn()

    async def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until `condition` holds after some turn, for `timeout` seconds at most; returns whether it does."""
        if condition():
            return True
        met: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._conditions.append((condition, met))
        await asyncio.wait([met], timeout=timeout)
        self._conditions = [each for each in self._conditions if each[1] is not met]
        return condition()

    async def close(self, limit: float = LINGER_SECS) -> int:
        """Flush what can be flushed, then close the socket with linger.

        Args:
            limit: seconds for all of it.

        Returns:
            How many peers did not take what waits for them.
        """
        if self._loop is None:
            return 0
        deadline = self._loop.time() + limit
        self._turn()
        # Half of the time for peers whose queues are full, half for libzmq to hand over what is in them.
        await self.until(lambda: not self._blocked, limit / 2)
        unsent = len(self._blocked)
        self._loop.remove_reader(self._socket.fileno())
        if self._timer is not None:
            self._timer.cancel()
        if self._gate is not None:
            self._gate.close()
        linger = min(LINGER_SECS, max(0.0, deadline - self._loop.time()))
        self._loop = None
        self._socket.close(linger=round(linger * 1000))
        await asyncio.to_thread(self._context.term)
        return unsent

    def _make_socket(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        socket.linger = round(LINGER_SECS * 1000)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # Twice the limit: a frame somewhat too large still gets an answer, a huge one ends the connection.
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * self.router.limits.frame_bytes)
        socket.setsockopt(zmq.BACKLOG, 1024)
        # What waits in ZeroMQ counts for no bound of ours: with its default of 1,000 frames it may be gigabytes.
        socket.setsockopt(zmq.SNDHWM, QUEUED_FRAMES)
        socket.setsockopt(zmq.RCVHWM, READ_AHEAD)
        return socket

    def _bind(self, endpoint: str) -> None:
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise AddressUnusable(f"cannot listen on {endpoint}: {error.strerror}") from None

    def _plan_turn(self) -> None:
        if not self._turn_planned and self._loop is not None:
            self._turn_planned = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Drain a batch, act on time, flush. Never re-entered: callbacks of local peers only add to the inbox."""
        self._turn_planned = False
        if self._loop is None:
            return
        router, now = self.router, self._clock()
        for peer, frame in self._take_inbox():
            router.receive(peer, frame, now, Origin("local"))
        more = self._drain(now)
        self._bury(now, more)
        router.tick(now)
        self._flush(now)
        if router.notices:
            notices, router.notices = router.notices, []
            self._on_notices(notices)
        for condition, met in self._conditions:
            if not met.done() and condition():
                met.set_result(None)
        # Sending may have consumed the edge of the descriptor, so look again.
        if more or self._gone or self._inbox or router.dirty or int(self._socket.getsockopt(EVENTS)) & POLLIN:
            self._plan_turn()
        self._plan_timer(now)

    def _take_inbox(self) -> list[tuple[bytes, bytes]]:
        taken, self._inbox = self._inbox, []
        return taken

    def _drain(self, now: float) -> bool:
        """Receive a batch; returns whether there may be more."""
        recv, getsockopt, router = self._socket.recv, self._socket.getsockopt, self.router
        for _ in range(BATCH):
            # Asking first costs a fraction of the exception at the end.
            if not int(getsockopt(EVENTS)) & POLLIN:
                return False
            peer = recv(NOBLOCK)
            if router.knows(peer):
                frame = recv(NOBLOCK)
                origin = None
            else:
                part = recv(NOBLOCK, copy=False)
                frame, origin = part.bytes, _origin(part, peer)
            if getsockopt(RCVMORE):
                frame = self._skip_rest()
            if origin is None:
                router.receive(peer, frame, now)
            else:
                router.receive(peer, frame, now, origin)
        return True

    def _bury(self, now: float, more: bool) -> None:
        """Give up peers that cannot be reached, once what they sent before they went has been read."""
        for peer, turns in list(self._gone.items()):
            if more and turns:
                self._gone[peer] = turns - 1
            else:
                del self._gone[peer]
                self.router.peer_lost(peer, now)

    def _skip_rest(self) -> bytes:
        """A message of several ZeroMQ frames is garbage; an empty frame makes the core say so."""
        while self._socket.getsockopt(RCVMORE):
            self._socket.recv(NOBLOCK)
        return b""

    def _flush(self, now: float) -> None:
        router = self.router
        if self._blocked:
            blocked, self._blocked = self._blocked, {}
            for outbox in blocked:
                self._flush_one(outbox, now)
        while router.dirty:
            dirty = router.dirty[:]
            router.dirty.clear()
            for outbox in dirty:
                outbox.listed = False
                if outbox not in self._blocked:
                    self._flush_one(outbox, now)
        strays, router.strays = router.strays, []
        for peer, frame in strays:
            self._send(peer, frame)

    def _flush_one(self, outbox: Outbox, now: float) -> None:
        while (frame := outbox.take()) is not None:
            sent = self._send(outbox.peer, frame)
            if sent is None:
                self._gone.setdefault(outbox.peer, LAST_WORDS)
                return
            if not sent:
                outbox.put_back(frame)
                self._block(outbox, now)
                return

    def _block(self, outbox: Outbox, now: float) -> None:
        if self.router.hold_back(outbox, now):
            self._blocked[outbox] = None

    def _send(self, peer: bytes, frame: bytes) -> bool | None:
        """True when it was taken, False when the peer's queue is full, None when the peer is gone."""
        port = self._locals.get(peer)
        if port is not None:
            port.on_frame(frame)
            return True
        try:
            if len(frame) >= LARGE_FRAME:
                return self._send_large(peer, frame)
            self._socket.send(peer, SNDMORE_NOBLOCK)
            self._socket.send(frame, NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return None
        return True

    def _send_large(self, peer: bytes, frame: bytes) -> bool:
        if not self._transit.takes(peer, len(frame)):
            return False
        self._socket.send(peer, SNDMORE_NOBLOCK)
        self._transit.add(peer, self._socket.send(frame, NOBLOCK, copy=False, track=True), len(frame))
        return True

    def _plan_timer(self, now: float) -> None:
        due = self.router.next_deadline()
        if self._blocked:
            due = now + RETRY_SECS if due is None else min(due, now + RETRY_SECS)
        if due is None or self._loop is None:
            return
        when = self._loop.time() + max(0.0, due - now)
        timer = self._timer
        if timer is None or timer.when() > when:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        # A loop runs timers early by up to the resolution of its clock, so `when()` does not tell whether this one ran.
        self._timer = None
        self._turn()


def _origin(part: zmq.Frame, peer: bytes) -> Origin:
    """Who is at the other end, by what libzmq knows: for ipc `localhost:uid:gid:pid` from SO_PEERCRED."""
    # The ROUTER's own choice is a zero and a number that begins at random: nobody can guess that of another peer.
    chosen = len(peer) != 5 or peer[0] != 0
    user = _metadata(part, "User-Id")
    fields = _metadata(part, "Peer-Address").split(":")
    if len(fields) == 4 and all(field.isdigit() for field in fields[1:]):
        uid, pid = int(fields[1]), int(fields[3])
        return Origin("ipc", pid=pid, group=_group(pid), uid=uid, chosen=chosen)
    return Origin("tcp", user=user, chosen=chosen)


def _metadata(part: zmq.Frame, name: str) -> str:
    try:
        return str(part.get(name))
    except zmq.ZMQError:
        return ""


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0
