"""One process on the bus: its session with the broker, kept alive across reconnects and restarts of the broker.

The peer owns the link, the outbox and the session; what is done with a session is in calls.py, subscriptions.py and
services.py, and `client.Bus` is what people use on top.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from msgspec import Struct

from plugin_sdk.calls import Calls
from plugin_sdk.handshake import ATTEMPT_SECS, Handshake
from plugin_sdk.keeper import Keeper
from plugin_sdk.link import Link
from plugin_sdk.outflow import Outflow
from plugin_sdk.registration import AttemptFailed, Profile, register
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, encode_frame
from plugin_sdk.wire.errors import BusError, ConnectionLost, RemoteProtocolError
from plugin_sdk.wire.limits import DEFAULT_LIMITS, Limits
from plugin_sdk.wire.session import Session, Side, State

AWAY_SECS = 15.0  # so long a publisher waits for a broker that is away: long enough for one that is restarted
CLOSE_SECS = 1.0  # so long at most is waited for a broker that does not read what is to be said before the end

_ENVELOPE = 1024  # bytes of a frame around a payload: session, kind, subject, options

log = logging.getLogger("plugin_sdk")


class Part(Protocol):
    """A part of a peer that must be told when sessions come and go."""

    async def restore(self, timeout: float) -> None:
        """A new session stands: put everything into force in it."""

    def reset(self) -> None:
        """The session is gone."""

    def end(self, error: BusError | None) -> None:
        """There will be none any more: for this reason, or because this side closed it."""


class Wakeable(Protocol):
    """Something that was given work while frames were read."""

    def wake(self) -> None:
        """All of it is there now: begin."""


class Peer:
    """A session with the broker. Everything happens on the event loop on which it was made.

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
        self.out = Outflow(link.send)
        self.send = self.out.send
        self._loop = asyncio.get_running_loop()
        self.calls = Calls(self.send, self.out.send_now, self._loop)
        self.window = DEFAULT_LIMITS.event_credit
        self.chunk_credit = DEFAULT_LIMITS.chunk_credit
        self.max_payload = DEFAULT_LIMITS.frame_bytes - _ENVELOPE
        self.permissions: dict[str, list[str]] = {}
        self.traces = False
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
        self.touched: dict[Wakeable, None] = {}
        self._link = link
        self._token = token
        self._endpoint = endpoint
        self._session = Session(Side.PEER)
        self._handshake = Handshake(self._session, self._send_register, endpoint)
        self._parts: list[Part] = []
        self._number = -1
        self.refused = 0
        self._refusal_logged = -1.0
        self._confirmed = False
        self._limits = Limits(frame_bytes=2 * DEFAULT_LIMITS.frame_bytes)
        self._keeper = Keeper(self)
        self._closed: BusError | None = None
        self.ended: asyncio.Future[BusError | None] = self._loop.create_future()

    @property
    def is_open(self) -> bool:
        """Whether the session stands right now."""
        return self._session.state is State.OPEN

    @property
    def number(self) -> int:
        """The number of the present session, 0 when there is none."""
        return self._number if self.is_open else 0

    def add_part(self, part: Part, handlers: dict[type[Struct], Callable[[Any], None]]) -> None:
        """Let `part` handle some packets and follow the session."""
        self._parts.append(part)
        self.handlers.update(handlers)

    async def open(self) -> None:
        """Connect and register; raises RegistrationError after the last attempt."""
        try:
            self._link.open(self)
            await self._register()
        except BaseException:
            self._shut(ConnectionLost("the registration failed"))
            raise
        self._keeper.start()

    async def register(self) -> None:
        """Register again, as soon as there is a connection; raises RegistrationError."""
        await self._handshake.connected()
        await self._register()
        log.info("registered again as %s", self.profile.name)

    async def restore(self) -> None:
        """Put everything into force in a new session; raises BusError."""
        await asyncio.gather(*(part.restore(ATTEMPT_SECS) for part in self._parts))

    def reconnect(self, reason: str) -> None:
        """Begin anew over a new connection: over the old one the broker may still hold the old session."""
        self._link.close()
        self.on_down(reason)
        self._link.open(self)

    def ping(self, number: int) -> None:
        """Ask the broker for a sign of life, and tell it our figures."""
        self.send(p.Ping(number, self.stats()))

    def give_up(self, error: BusError) -> None:
        """The session will not come back."""
        self._shut(error)

    async def close(self, text: str = "") -> None:
        """Say what is left to say, then goodbye, and end the session."""
        if self.is_open:
            self.send(p.Goodbye("goodbye", text))
            await self._said()
        self._shut(None)

    async def until_open(self, timeout: float) -> None:
        """Return once the session stands; raises ConnectionLost after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._closed is None and not (self.is_open and self._keeper.ready.is_set()):
                    await self._keeper.ready.wait()
        except TimeoutError:
            text = f"no session with the broker: {self._handshake.reason or 'it does not answer'}"
            raise ConnectionLost(text, "unavailable") from None
        if self._closed is not None:
            raise ConnectionLost(self._closed.text, self._closed.code)

    async def may_publish(self) -> None:
        """Wait until the broker and the transport take another event; raises ConnectionLost when they will not."""
        while not self.out.takes_events():
            if self.is_open:
                await self.out.changed()
            else:
                await self.until_open(AWAY_SECS)

    def on_up(self) -> None:
        """The link stands."""
        self._handshake.up()

    def on_down(self, reason: str) -> None:
        """The link is gone: nothing sent before can be relied on."""
        self._handshake.down(reason)
        self._lose(reason)

    def on_writable(self) -> None:
        """The transport takes frames again."""
        self.out.flush()
        self.out.wake()

    def on_frames(self, frames: list[bytes]) -> None:
        """Decode and act; then let the handlers run that were given something."""
        self._keeper.heard = self._loop.time()
        handlers = self.handlers
        for frame in frames:
            try:
                number, packets = decode_frame(frame, self._limits)
            except RemoteProtocolError as error:
                log.error("the broker sent an invalid frame: %s", error)
                continue
            if number == self._number:
                self._confirmed = True
            elif not _comes_before_a_session(number, packets):
                continue
            for packet in packets:
                handler = handlers.get(type(packet))
                if handler is not None:
                    handler(packet)
        if self.touched:
            for each in self.touched:
                each.wake()
            self.touched.clear()

    async def _register(self) -> None:
        await register(self._handshake.attempt, self.profile.name, self._endpoint)

    def _send_register(self) -> bool:
        self.before_register()
        return self._link.send(encode_frame(0, [self.profile.packet(self._token)]))

    def _on_registered(self, packet: p.Registered) -> None:
        if self._session.state is not State.REGISTERING:
            return
        self._number, self._confirmed = packet.session, False
        self.out.begin(packet.session, packet.credit)
        self.window = _limit(packet, "event_credit", packet.credit)
        frame_bytes = _limit(packet, "frame_bytes", DEFAULT_LIMITS.frame_bytes)
        self.chunk_credit = _limit(packet, "chunk_credit", DEFAULT_LIMITS.chunk_credit)
        self.max_payload = frame_bytes - _ENVELOPE
        self.permissions = packet.permissions
        self.traces = packet.limits.get("traces") is True
        # What the broker has bundled for us may exceed what it takes itself.
        self._limits = Limits(frame_bytes=2 * frame_bytes)
        self._keeper.beat = max(packet.heartbeat_ms, 1) / 1000
        self._handshake.admitted()
        # Its answer proves that the broker knows the session: refusals of older frames may still be on their way.
        self.ping(0)

    def _on_refused(self, packet: p.Refused) -> None:
        if self._session.state is State.REGISTERING:
            # This code answers what was sent before the REGISTER.
            if packet.code != "unknown_session":
                self._handshake.refused(packet)
        elif self.is_open and (self._confirmed or packet.code != "unknown_session"):
            self._lose(packet.text)

    def _on_goodbye(self, packet: p.Goodbye) -> None:
        text = f"the broker ended the session: {packet.text or packet.code}"
        self._lose(text)
        if packet.code != "shutting_down":
            self._shut(ConnectionLost(text, packet.code))

    def _on_error(self, packet: p.Error) -> None:
        if packet.ref:
            self.calls.on_error(packet)
            return
        # Nothing says which packet it was; somebody who publishes what is denied to him may do so very often.
        self.refused += 1
        now = self._loop.time()
        if now > self._refusal_logged + 1.0:
            self._refusal_logged = now
            log.error("the broker refused a packet: %s: %s (%d so far)", packet.code, packet.text, self.refused)

    def _lose(self, reason: str) -> None:
        """The session is over; whoever waits for an answer is told so."""
        if not self.is_open:
            return
        self._handshake.reason = reason
        self._session.reset()
        self._forget(ConnectionLost(reason))
        self._keeper.lost()

    def _forget(self, error: BusError) -> None:
        """Nothing that belongs to the session is valid any more."""
        self._number = -1
        self.out.end()
        self.calls.fail_all(error)
        for part in self._parts:
            part.reset()

    async def _said(self) -> None:
        """Wait a little for the transport to take what is left."""
        self.out.flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECS):
                while self.is_open and self.out.outbox.pending_bytes:
                    await self.out.changed()

    def _shut(self, error: BusError | None) -> None:
        """End for good."""
        if self._closed is not None:
            return
        self._closed = error or ConnectionLost("this side closed the session", "cancelled")
        self._session.state = State.CLOSED
        self._handshake.fail(AttemptFailed(self._closed.code, self._closed.text))
        self._forget(self._closed)
        for part in self._parts:
            part.end(error)
        self._keeper.stop()
        self._link.close()
        if not self.ended.done():
            self.ended.set_result(error)


def _comes_before_a_session(number: int, packets: list[Any]) -> bool:
    """REFUSED comes under number 0, REGISTERED under the number that it announces; all else is of an old session."""
    first = packets[0] if packets else None
    return type(first) is p.Registered if number else type(first) is p.Refused


def _limit(packet: p.Registered, name: str, default: int) -> int:
    value = packet.limits.get(name)
    return value if type(value) is int and value > 0 else default
