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

    def __init__(self, due: float) -> None:
        self.due = due
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
        send_now: the same, and sends it now, not at the end of this turn.
        loop: where the replies are awaited.
    """

    def __init__(
        self,
        send: Callable[[p.Packet], None],
        send_now: Callable[[p.Packet], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._send = send
        self._send_now = send_now
        self._loop = loop
        self._refs = count(1)
        self._replies: dict[int, tuple[asyncio.Future[Raw], float]] = {}  # with the time when nobody waits any longer
        self._streams: dict[int, Stream] = {}
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._replies) + len(self._streams)

    def next_ref(self) -> int:
        """A number that is not in use."""
        return next(self._refs)

    def begin(self, packet: p.Packet, ref: int, timeout: float) -> asyncio.Future[Raw]:
        """Send a packet; the future gets its outcome. Ask end() once nobody waits for that, however it came.

        Args:
            packet: carries `ref`.
            ref: from next_ref.
            timeout: seconds after which the outcome is RequestFailed `timeout`.
        """
        reply: asyncio.Future[Raw] = self._loop.create_future()
        if not self._sweeping:
            self._begin_sweeping()
        # With nothing on its way that it could share a frame with, waiting for others would only cost time.
        send = self._send if self._replies else self._send_now
        self._replies[ref] = (reply, self._loop.time() + timeout + GRACE_SECS)
        send(packet)
        return reply

    def cancel(self, ref: int) -> None:
        """Nobody wants the outcome any more: it ends at the callee too."""
        self._send(p.Cancel(ref))

    def end(self, ref: int) -> None:
        """Nobody waits for this outcome any more."""
        del self._replies[ref]

    async def ask(self, packet: p.Packet, ref: int, timeout: float) -> Raw:
        """Send a packet that carries `ref` and wait for its outcome; raises RequestFailed when it did not go well."""
        reply = self.begin(packet, ref, timeout)
        try:
            return await reply
        finally:
            self.end(ref)

    def open_stream(self, packet: p.Call, timeout: float) -> Stream:
        """Send a request whose reply comes in pieces; ask drop_stream at the end, however it comes."""
        if not self._sweeping:
            self._begin_sweeping()
        stream = self._streams[packet.ref] = Stream(self._loop.time() + timeout + GRACE_SECS)
        self._send(packet)
        return stream

    def drop_stream(self, ref: int) -> None:
        """Nobody reads this stream any more."""
        if self._streams.pop(ref, None) is not None:
            self._send(p.Cancel(ref))

    def on_reply(self, packet: p.Reply) -> None:
        """The last word of a request."""
        waiting = self._replies.get(packet.ref)
        if waiting is not None:
            if not waiting[0].done():
                waiting[0].set_result(packet.payload)
            return
        stream = self._streams.pop(packet.ref, None)
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
        waiting = self._replies.get(packet.ref)
        if waiting is not None and not waiting[0].done():
            waiting[0].set_result(Raw(b""))

    def on_error(self, packet: p.Error) -> None:
        """Something that we asked for did not go well."""
        self._fail(packet.ref, RequestFailed(packet.code, packet.text, packet.details))

    def fail_all(self, error: BusError) -> None:
        """The session is gone: nothing will be answered any more."""
        for ref in [*self._replies, *self._streams]:
            self._fail(ref, RequestFailed(error.code, error.text))

    def _fail(self, ref: int, error: RequestFailed) -> None:
        waiting = self._replies.get(ref)
        if waiting is not None:
            if not waiting[0].done():
                waiting[0].set_exception(error)
            return
        stream = self._streams.pop(ref, None)
        if stream is not None:
            stream.end(error)

    def _begin_sweeping(self) -> None:
        self._sweeping = True
        self._loop.call_later(SWEEP_SECS, self._sweep)

    def _sweep(self) -> None:
        # One timer that looks at all: a timer for each request costs as much as the rest of it.
        now = self._loop.time()
        late = [ref for ref, (_, due) in self._replies.items() if due <= now]
        late += [ref for ref, stream in self._streams.items() if stream.due <= now]
        for ref in late:
            self._fail(ref, RequestFailed("timeout", _LATE))
        self._sweeping = bool(self._replies or self._streams)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECS, self._sweep)


def decode_reply(payload: Raw | bytes, service: str) -> Any:
    """The value of a reply; raises RequestFailed `bad_packet` when it is not msgpack."""
    try:
        return decode_body(decode_payload(payload)[1], service)
    except BusError as error:
        raise RequestFailed("bad_packet", f"the reply of {service!r}: {error.text}") from None
