"""Requests that this process has made and not yet seen the end of."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from msgspec import Raw

from plugin_sdk.events import decode_body
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_payload
from plugin_sdk.wire.deadlines import Deadlines
from plugin_sdk.wire.errors import BusError, CallError

# The broker enforces deadlines; this side only waits that much longer for a broker that does not answer at all.
GRACE_SECS = 1.0
SWEEP_SECS = 0.25
_LATE = "no answer from the broker in time"


class RequestFailed(CallError):
    """A request of this process ended without a reply.

    The type tells it apart from a CallError that a handler raises as its own answer.
    """


def is_undecided(error: BaseException) -> bool:
    """Whether the broker may still do what was asked, as it had not answered when nobody waited any longer."""
    return isinstance(error, asyncio.CancelledError) or (isinstance(error, RequestFailed) and error.code == "timeout")


class Stream:
    """The receiving end of a streamed reply: pieces as they arrive, then the end or an error."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self._pieces: deque[Raw] = deque()
        self._ended: BusError | bool = False
        self._waiter: asyncio.Future[None] | None = None

    def push(self, payload: Raw) -> None:
        """One more piece."""
        self._pieces.append(payload)
        self._wake()

    def end(self, error: BusError | None = None) -> None:
        """No more pieces, for this reason."""
        self._ended = error or True
        self._wake()

    async def next(self) -> Raw | None:
        """The next piece, or None at the end; raises what ended it."""
        while not self._pieces:
            if isinstance(self._ended, BusError):
                raise self._ended
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._pieces.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Calls:
    """Everything this side has asked and waits for, by ref.

    Args:
        send: puts a packet into the outbox.
        flush: sends what is in the outbox now, not at the end of this turn.
    """

    def __init__(self, send: Callable[[p.Packet], None], flush: Callable[[], None]) -> None:
        self._send = send
        self._flush = flush
        self._refs = count(1)
        self._replies: dict[int, asyncio.Future[Raw]] = {}
        self._streams: dict[int, Stream] = {}
        self._deadlines = Deadlines()
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._replies) + len(self._streams)

    def next_ref(self) -> int:
        """A number that is not in use."""
        return next(self._refs)

    async def ask(self, packet: p.Packet, ref: int, timeout: float, *, cancellable: bool = False) -> Raw:
        """Send a packet and wait for its outcome.

        Args:
            packet: carries `ref`.
            ref: from next_ref.
            timeout: seconds after which an answer is not waited for any longer.
            cancellable: whether the broker should be told when the waiting task is cancelled.

        Raises:
            RequestFailed: what was answered instead, or `timeout` when nobody did.
        """
        reply: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        alone = not self._replies
        self._replies[ref] = reply
        self._send(packet)
        if alone:
            # Nothing is on its way that it could share a frame with: waiting for others would only cost time.
            self._flush()
        slot = self._watch(ref, timeout)
        try:
            return await reply
        except asyncio.CancelledError:
            if cancellable:
                self._send(p.Cancel(ref))
            raise
        finally:
            self._deadlines.discard(ref, slot)
            del self._replies[ref]

    def open_stream(self, packet: p.Call, timeout: float) -> Stream:
        """Send a request whose reply comes in pieces; ask drop_stream at the end, however it comes."""
        stream = self._streams[packet.ref] = Stream(self._watch(packet.ref, timeout))
        self._send(packet)
        return stream

    def drop_stream(self, ref: int) -> None:
        """Nobody reads this stream any more."""
        if self._end_stream(ref) is not None:
            self._send(p.Cancel(ref))

    def on_reply(self, packet: p.Reply) -> None:
        """The last word of a request."""
        reply = self._replies.get(packet.ref)
        if reply is not None:
            if not reply.done():
                reply.set_result(packet.payload)
            return
        stream = self._end_stream(packet.ref)
        if stream is None:
            return
        try:
            # A service that does not stream answers with its one value; the end of a stream has an empty body.
            if decode_payload(packet.payload)[1]:
                stream.push(packet.payload)
            stream.end()
        except BusError as error:
            stream.end(RequestFailed(error.code, error.text))

    def on_chunk(self, packet: p.Chunk) -> None:
        """A piece of a streamed reply."""
        stream = self._streams.get(packet.ref)
        if stream is not None:
            stream.push(packet.payload)

    def on_ok(self, packet: p.Ok) -> None:
        """Something that we asked for took effect."""
        reply = self._replies.get(packet.ref)
        if reply is not None and not reply.done():
            reply.set_result(Raw(b""))

    def on_error(self, packet: p.Error) -> None:
        """Something that we asked for did not go well."""
        self._fail(packet.ref, RequestFailed(packet.code, packet.text, packet.details))

    def fail_all(self, error: BusError) -> None:
        """The session is gone: nothing will be answered any more."""
        for ref in [*self._replies, *self._streams]:
            self._fail(ref, RequestFailed(error.code, error.text))

    def _fail(self, ref: int, error: RequestFailed) -> None:
        reply = self._replies.get(ref)
        if reply is not None:
            if not reply.done():
                reply.set_exception(error)
            return
        stream = self._end_stream(ref)
        if stream is not None:
            stream.end(error)

    def _end_stream(self, ref: int) -> Stream | None:
        stream = self._streams.pop(ref, None)
        if stream is not None:
            self._deadlines.discard(ref, stream.slot)
        return stream

    def _watch(self, ref: int, timeout: float) -> int:
        # One timer for all: a timer handle for each request costs as much as the rest of it.
        loop = asyncio.get_running_loop()
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(SWEEP_SECS, self._sweep)
        return self._deadlines.add(ref, loop.time() + timeout + GRACE_SECS)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for ref in self._deadlines.expire(loop.time()):
            self._fail(ref, RequestFailed("timeout", _LATE))
        self._sweeping = bool(self._replies or self._streams)
        if self._sweeping:
            loop.call_later(SWEEP_SECS, self._sweep)


def decode_reply(payload: Raw | bytes, service: str) -> Any:
    """The value of a reply; raises RequestFailed `bad_packet` when it is not msgpack."""
    try:
        return decode_body(decode_payload(payload)[1], f"the reply of {service!r}")
    except BusError as error:
        raise RequestFailed("bad_packet", error.text) from None
