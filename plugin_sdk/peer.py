"""One process on the bus: its session with the broker, kept alive across reconnects and restarts of the broker.

The peer owns the link, the outbox and the registration; what is done with a session is in calls.py,
subscriptions.py and services.py, and `client.Bus` is what people use on top.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Protocol

from msgspec import Struct

from plugin_sdk.calls import Calls
from plugin_sdk.link import Link
from plugin_sdk.registration import AttemptFailed, AttemptMayBeRepeated, Profile, register
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, encode, encode_frame
from plugin_sdk.wire.errors import BusError, ConnectionLost, RegistrationError, RemoteProtocolError
from plugin_sdk.wire.limits import DEFAULT_LIMITS
from plugin_sdk.wire.outbox import Outbox
from plugin_sdk.wire.session import Session, Side, State

ATTEMPT_SECS = 2.0
SILENT_BEATS = 3  # heartbeats without a word after which the session is taken for dead
_ENVELOPE = 1024  # bytes of a frame around a payload: session, kind, subject, options

# So many requests or replies go out before the end of a turn: the other side can begin while this one goes on.
PIPELINE = 16

log = logging.getLogger("plugin_sdk")


class Part(Protocol):
    """A part of a peer that must be told when sessions come and go."""

    async def restore(self, timeout: float) -> None:
        """A new session stands: put everything into force in it."""

    def reset(self) -> None:
        """The session is gone."""


class Peer:
    """A session with the broker. Everything happens on the event loop on which it was opened.

    Args:
        link: the transport.
        profile: what to register as.
        token: what admits us.
        endpoint: the link's address, for texts.
    """

    def __init__(self, link: Link, profile: Profile, token: str, endpoint: str) -> None:
        self.profile = profile
        self.stats: Callable[[], dict[str, Any]] = dict
        self.before_register: Callable[[], None] = lambda: None
        self.outbox = Outbox(b"", 0, 0, [])
        self.calls = Calls(self.send)
        self.window = DEFAULT_LIMITS.event_credit
        self.max_payload = DEFAULT_LIMITS.frame_bytes - _ENVELOPE
        self.handlers: dict[type[Struct], Callable[[Any], None]] = {
            p.Reply: self.calls.on_reply,
            p.Chunk: self.calls.on_chunk,
            p.Ok: self.calls.on_ok,
            p.Error: self._on_error,
            p.Ping: lambda packet: self.send(p.Pong(packet.number)),
            p.Pong: lambda packet: None,
            p.Registered: self._on_registered,
            p.Refused: self._on_refused,
            p.Goodbye: self._on_goodbye,
            p.Unknown: lambda packet: self.send(p.Error(0, "unsupported", f"packet kind {packet.kind}")),
        }
        self.touched: dict[Any, None] = {}
        self._link = link
        self._token = token
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._session = Session(Side.PEER)
        self._parts: list[Part] = []
        self._number = 0
        self._planned = False
        self._beat = 5.0
        self._heard = 0.0
        self._reason = f"not connected to {endpoint} yet"
        self._welcome: asyncio.Future[None] | None = None
        self._up = asyncio.Event()
        self._open = asyncio.Event()
        self._lost = asyncio.Event()
        self._publishers: list[asyncio.Future[None]] = []
        self._closed: BusError | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.ended: asyncio.Future[BusError | None] = self._loop.create_future()

    @property
    def is_open(self) -> bool:
        """Whether the session stands right now."""
        return self._session.state is State.OPEN

    def add_part(self, part: Part, handlers: dict[type[Struct], Callable[[Any], None]]) -> None:
        """Let `part` handle some packets and follow the session."""
        self._parts.append(part)
        self.handlers.update(handlers)

    async def open(self) -> None:
        """Connect and register; raises RegistrationError after the last attempt."""
        self._link.open(self)
        try:
            await register(self._attempt, self.profile.name, self._endpoint)
        except BaseException:
            self._shut(ConnectionLost("the registration failed"))
            raise
        self._start(self._heartbeat())
        self._start(self._keep())

    async def close(self, text: str = "") -> None:
        """Say goodbye and end the session."""
        if self.is_open:
            self.outbox.add(encode(p.Goodbye("goodbye", text)))
            self.flush()
        self._shut(None)

    async def until_open(self, timeout: float) -> None:
        """Return once the session stands; raises ConnectionLost after `timeout` seconds."""
        if not self.is_open and self._closed is None:
            try:
                async with asyncio.timeout(timeout):
                    await self._open.wait()
            except TimeoutError:
                raise ConnectionLost(f"no session with the broker: {self._reason}", "unavailable") from None
        if self._closed is not None:
            raise self._closed

    def send(self, packet: p.Packet) -> None:
        """Put a packet into this turn's frame. Without a session it goes nowhere: nothing of it would be valid."""
        self.outbox.add(encode(packet))
        if self.outbox.count >= PIPELINE:
            self.flush()
        elif not self._planned:
            self.plan_flush()

    def plan_flush(self) -> None:
        """Flush at the end of this turn of the loop."""
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what was gathered, as far as the transport takes it."""
        self._planned = False
        outbox = self.outbox
        outbox.listing.clear()
        outbox.listed = False
        if self._session.state is not State.OPEN:
            return
        while (frame := outbox.take()) is not None:
            if not self._link.send(frame):
                outbox.put_back(frame)
                return

    async def may_publish(self) -> None:
        """Wait until the broker and the transport take another event; raises ConnectionLost when they will not."""
        while True:
            if not self.is_open:
                await self.until_open(SILENT_BEATS * self._beat)
            self.flush()
            if self.outbox.allowance > 0 and not self.outbox.sealed:
                return
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._publishers.append(waiter)
            await waiter

    def add_credit(self, amount: int) -> None:
        """The broker takes `amount` more bytes of events."""
        self.outbox.allowance += amount
        self._wake_publishers()

    def on_up(self) -> None:
        """The link stands."""
        self._up.set()

    def on_down(self, reason: str) -> None:
        """The link is gone: nothing sent before can be relied on."""
        self._up.clear()
        self._lose(reason)

    def on_writable(self) -> None:
        """The transport takes frames again."""
        self.flush()
        self._wake_publishers()

    def on_frames(self, frames: list[bytes]) -> None:
        """Decode and act; then let the handlers run that were given something."""
        self._heard = self._loop.time()
        handlers = self.handlers
        for frame in frames:
            try:
                number, packets = decode_frame(frame)
            except RemoteProtocolError as error:
                log.error("the broker sent an invalid frame: %s", error)
                continue
            # Number 0 carries REFUSED; REGISTERED comes under the number that it announces.
            if number != self._number and number and type(packets[0]) is not p.Registered:
                continue
            for packet in packets:
                handler = handlers.get(type(packet))
                if handler is not None:
                    handler(packet)
        if self.touched:
            for each in self.touched:
                each.wake()
            self.touched.clear()

    async def _attempt(self) -> None:
        """One attempt to register."""
        if self._closed is not None:
            raise AttemptFailed(self._closed.code, self._closed.text)
        try:
            async with asyncio.timeout(ATTEMPT_SECS):
                await self._up.wait()
                self._session.reset()
                self._session.said(Side.PEER, p.Register)
                self.before_register()
                self._welcome = self._loop.create_future()
                if not self._link.send(encode_frame(0, [self.profile.packet(self._token)])):
                    raise AttemptMayBeRepeated("lost", self._reason)
                await self._welcome
        except TimeoutError:
            text = self._reason or f"the broker did not answer within {ATTEMPT_SECS:g} s"
            raise AttemptMayBeRepeated("timeout", text) from None

    async def _keep(self) -> None:
        """Register again whenever the session was lost, for as long as that can help."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            while not self.is_open:
                await self._up.wait()
                try:
                    await register(self._attempt, self.profile.name, self._endpoint)
                    for part in self._parts:
                        await part.restore(ATTEMPT_SECS)
                    log.info("registered again as %s", self.profile.name)
                except RegistrationError as error:
                    if error.code not in ("lost", "timeout") and not error.retry:
                        self._shut(error)
                        return
                    log.warning("%s; trying again", error)
                except BusError as error:
                    log.warning("the session could not be restored: %s", error)

    async def _heartbeat(self) -> None:
        for number in count(1):
            await asyncio.sleep(self._beat)
            if self._loop.time() - self._heard > SILENT_BEATS * self._beat:
                self._lose(f"the broker was silent for {SILENT_BEATS * self._beat:g} s")
            elif self.is_open:
                self.send(p.Ping(number, self.stats()))

    def _on_registered(self, packet: p.Registered) -> None:
        if self._session.state is not State.REGISTERING:
            return
        self._session.said(Side.BROKER, p.Registered)
        self._number = packet.session
        self.outbox = Outbox(b"", packet.session, packet.credit, [])
        self.window = packet.credit
        self.max_payload = int(packet.limits.get("frame_bytes", DEFAULT_LIMITS.frame_bytes)) - _ENVELOPE
        self._beat = max(packet.heartbeat_ms, 1) / 1000
        self._reason = ""
        self._open.set()
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_result(None)

    def _on_refused(self, packet: p.Refused) -> None:
        if self._session.state is State.OPEN:
            self._lose(packet.text)
        elif self._session.state is State.REGISTERING and packet.code != "unknown_session":
            self._session.said(Side.BROKER, p.Refused)
            kind = AttemptMayBeRepeated if packet.retry else AttemptFailed
            if self._welcome is not None and not self._welcome.done():
                self._welcome.set_exception(kind(packet.code, packet.text))

    def _on_goodbye(self, packet: p.Goodbye) -> None:
        text = f"the broker ended the session: {packet.text or packet.code}"
        self._lose(text)
        if packet.code != "shutting_down":
            self._shut(ConnectionLost(text, packet.code))

    def _on_error(self, packet: p.Error) -> None:
        if packet.ref:
            self.calls.on_error(packet)
        else:
            log.error("the broker refused a packet: %s: %s", packet.code, packet.text)

    def _lose(self, reason: str) -> None:
        """The session is over; whoever waits for an answer is told so."""
        self._reason = reason
        if self._session.state is State.REGISTERING and self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(AttemptMayBeRepeated("lost", reason))
        if not self.is_open:
            return
        self._session.reset()
        self._open.clear()
        self.outbox = Outbox(b"", 0, 0, [])
        self.calls.fail_all(ConnectionLost(reason))
        for part in self._parts:
            part.reset()
        self._wake_publishers()
        self._lost.set()

    def _wake_publishers(self) -> None:
        waiting, self._publishers = self._publishers, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._loop.create_task(work))

    def _shut(self, error: BusError | None) -> None:
        if self._closed is not None:
            return
        self._closed = error or ConnectionLost("this side closed the session", "cancelled")
        self._session.state = State.CLOSED
        self.calls.fail_all(self._closed)
        for part in self._parts:
            part.reset()
        self._open.set()
        self._wake_publishers()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._link.close()
        if not self.ended.done():
            self.ended.set_result(error)
