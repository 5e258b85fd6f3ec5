"""The bus as programs see it: publish, subscribe, call, stream, serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any, TypeVar

from msgspec import Raw

from plugin_sdk.calls import decode_reply
from plugin_sdk.handlers import THREADS, Handler, HandlerThreads
from plugin_sdk.heads import Settled
from plugin_sdk.inlets import Inlets
from plugin_sdk.options import ServiceOptions, SubscribeOptions
from plugin_sdk.outgoing import call_options, milliseconds, pack
from plugin_sdk.peer import Peer
from plugin_sdk.services import Servers, Service
from plugin_sdk.subscriptions import Subscription
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode_payload, publish_head
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import EVENT_OVERHEAD, FRAME_TARGET, MAX_SUBJECT_BYTES
from plugin_sdk.wire.subjects import check_subject, is_reserved, matches
from plugin_sdk.workers import HandlerStats

DEFAULT_TIMEOUT = 5.0
_CACHED_SUBJECTS = 10_000
Options = TypeVar("Options", SubscribeOptions, ServiceOptions)


class Bus:
    """A session with the broker, for one event loop.

    Args:
        peer: the session.
        threads: how many plain handlers may run at once.
    """

    def __init__(self, peer: Peer, threads: int = THREADS) -> None:
        self._peer = peer
        self._out = peer.out
        self.threads = HandlerThreads(threads)
        self._inlets: Inlets[Subscription] = Inlets(peer, self.threads)
        self._servers = Servers(peer, self.threads)
        self._heads: dict[str, bytes] = {}
        # Of a bus that leaves traces: gives something false for each event of which there is nothing to be said.
        self._gate: Iterator[object] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a session right now; it comes back by itself."""
        return self._peer.is_open

    @property
    def session(self) -> int:
        """The number that the broker gave to the present session, 0 when there is none."""
        return self._peer.number

    @property
    def ended(self) -> asyncio.Future[BusError | None]:
        """Done when the session will not come back, with the reason, or None after close()."""
        return self._peer.ended

    async def open(self) -> None:
        """Connect and register; raises RegistrationError."""
        await self._peer.open()

    async def ready(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Return once the session stands, with all subscriptions and services; raises ConnectionLost."""
        await self._peer.until_open(timeout)

    async def close(self) -> None:
        """Send what is pending, say goodbye and disconnect; handlers that still run are cancelled."""
        await self._peer.close()
        self.threads.close()

    async def publish(
        self, subject: str, data: Any = None, *, headers: dict[str, str] | None = None, retain: bool = False
    ) -> None:
        """Publish an event.

        Waits only when a subscriber with the policy `block` is slow, or up to 15 s while the broker is away.

        Args:
            subject: what it is about, such as `user.login`.
            data: anything msgpack can express; encoded here, so it may be changed afterwards.
            headers: text to text, passed on untouched.
            retain: keep it as the subject's last value.

        Raises:
            BadSubject: the subject breaks the grammar.
            BusError: code `bad_request` when `data` cannot be encoded, `too_large` when it is over the limit, `denied`
                when the plugin was not granted the subject.
            ConnectionLost: there is no broker.
        """
        gate = self._gate
        if gate is not None:
            # Asked here, as one more function on the way would cost a small event a sixth of its time.
            if headers is None:
                if next(gate, True):
                    await self._publish_traced(subject, data, None, retain)
                    return
            elif not isinstance(headers, Settled):
                await self._publish_traced(subject, data, headers, retain)
                return
        payload = pack(data, headers, subject, self._peer.max_payload)
        cost = len(payload) + EVENT_OVERHEAD
        head = (self._heads.get(subject) if not retain else None) or self._head(subject, retain)
        out = self._out
        if out.outbox.allowance <= 0:
            await self._peer.may_publish()
        outbox = out.outbox
        if cost > FRAME_TARGET:
            # One just under the limit of a frame must not share its frame with others.
            outbox.seal()
        outbox.allowance -= cost
        outbox.parts += (head, payload)
        outbox.count += 1
        outbox.size += cost
        if not outbox.listed:
            outbox.listed = True
            out.plan_flush()
        if outbox.size > FRAME_TARGET:
            # A tight loop of publishes never returns to the event loop by itself.
            out.flush()
            await asyncio.sleep(0)

    def subscribe(
        self, pattern: str, handler: Handler | None = None, *, options: SubscribeOptions | None = None, **how: Any
    ) -> Subscription:
        """Subscribe to a pattern: await the result, or use it in `async with`; iterate it when there is no handler.

        Args:
            pattern: a subject; `*` stands for one token, a last `>` for one or more.
            handler: called with each Event; a plain function runs in the thread pool.
            options: how events are delivered; or give its fields by name: group, filter, batch, concurrency, …

        Raises:
            BadSubject: the pattern breaks the grammar.
            TypeError, ValueError: an option is unknown, or makes no sense.
        """
        return Subscription(self._inlets, pattern, handler, options_of(SubscribeOptions, options, how))

    async def call(
        self,
        service: str,
        args: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        wait_ready: float = 0.0,
        headers: dict[str, str] | None = None,
        to: int | None = None,
    ) -> Any:
        """Call a service and return its result.

        Args:
            service: the full name, such as `users.get`.
            args: the request's body; a dict is passed by name where it fits the handler.
            timeout: seconds until the broker ends the request.
            wait_ready: seconds to wait for somebody to serve it, at most `timeout`.
            headers: text to text, for the handler.
            to: number of the one session to ask; for the operator.

        Raises:
            RequestFailed: with the code of what happened: `unavailable`, `timeout`, `failed`, `denied`, `lost`, …
            ConnectionLost: there is no broker.
            BusError: the arguments cannot be encoded, or are too large.
            ValueError: a time makes no sense.
        """
        if not self._out.is_open:
            timeout = await self._until_open(timeout)
        calls = self._peer.calls
        ref = calls.next_ref()
        options = call_options(wait_ready, to=to) if wait_ready or to is not None else None
        reply = calls.begin(self._call_packet(ref, service, args, headers, timeout, options), ref, timeout)
        try:
            payload = await reply
        except asyncio.CancelledError:
            calls.cancel(ref)
            raise
        finally:
            calls.end(ref)
        return decode_reply(payload, service)

    async def stream(
        self,
        service: str,
        args: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        wait_ready: float = 0.0,
        headers: dict[str, str] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Call a service that streams its reply, and iterate over the pieces.

        `timeout` is for the whole stream. The service waits when the pieces are not taken.

        Raises:
            RequestFailed: as call(), also in the middle of the stream.
        """
        timeout = await self._until_open(timeout)
        calls, ref = self._peer.calls, self._peer.calls.next_ref()
        packet = self._call_packet(ref, service, args, headers, timeout, call_options(wait_ready, stream=True))
        stream = calls.open_stream(packet, timeout)
        # A quarter at a time: credit must be on its way before the service has run out of it.
        portion = max(1, self._peer.chunk_credit // 4)
        taken = 0
        try:
            while (piece := await stream.next()) is not None:
                taken += 1
                if taken % portion == 0:
                    self._peer.send(p.Credit(ref, portion))
                yield decode_reply(piece, service)
        finally:
            calls.drop_stream(ref)

    async def serve(self, service: str, handler: Handler, *, options: ServiceOptions | None = None, **how: Any) -> None:
        """Answer requests to a service; its name begins with the plugin's own.

        Args:
            service: the full name.
            handler: coroutine function, plain function or async generator function.
            options: limits; or give its fields by name: concurrency, timeout.

        Raises:
            CallError: the broker refused it.
            TypeError, ValueError: the handler is no function, an option is unknown, or makes no sense.
        """
        check_subject(service)
        await self._servers.add(Service(self._servers, service, handler, options_of(ServiceOptions, options, how)))

    def serve_unannounced(self, service: str, handler: Handler) -> None:
        """Answer the broker's own requests, such as the life-cycle commands."""
        self._servers.add_unannounced(Service(self._servers, service, handler, ServiceOptions()))

    async def withdraw(self, service: str) -> None:
        """Take no new requests to a service and return once those in hand are answered."""
        await self._servers.remove(service)

    def subscriptions(self) -> list[Subscription]:
        """Those in force, with their figures."""
        return list(self._inlets)

    @property
    def unclaimed(self) -> int:
        """How many events came for subscriptions that had just ended."""
        return self._inlets.unclaimed

    @property
    def traces_withheld(self) -> int:
        """How many traces were to be recorded, and were not, so that a flood stays within what tracing may cost."""
        return 0

    def services(self) -> list[Service]:
        """Those registered, with their figures."""
        return list(self._servers)

    def event_figures(self) -> HandlerStats:
        """What all subscriptions have done so far, those that have ended too."""
        return self._inlets.tally.total()

    def request_figures(self) -> HandlerStats:
        """The same of services."""
        return self._servers.tally.total()

    async def _publish_traced(self, subject: str, data: Any, headers: dict[str, str] | None, retain: bool) -> None:
        """Settle what the headers say of a trace, and publish."""
        raise NotImplementedError

    def _head(self, subject: str, retain: bool) -> bytes:
        check_subject(subject)
        if is_reserved(subject) and not self._peer.profile.name.startswith("$"):
            raise BusError("denied", f"publishing to {subject!r} is for the broker only: it is reserved")
        granted = self._peer.permissions.get("publish")
        if granted is not None and not any(matches(pattern, subject) for pattern in granted):
            # The broker is told all the same, with nothing in it: what was denied belongs into its audit log.
            self._peer.send(p.Publish(0, subject, Raw(encode_payload(b""))))
            text = f"{self._peer.profile.name!r} lacks the permission 'event_bus: publish {subject}'"
            raise BusError("denied", f"{text}: ask for it in plugin.yaml, or have the operator grant it")
        head = publish_head(subject, p.RETAIN if retain else 0)
        if not retain:
            if len(self._heads) >= _CACHED_SUBJECTS:
                self._heads.clear()
            self._heads[subject] = head
        return head

    async def _until_open(self, timeout: float) -> float:
        """Wait for the session; returns how many of the `timeout` seconds are left."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._peer.until_open(timeout)
        return max(timeout - (loop.time() - began), 0.001)

    def _call_packet(
        self,
        ref: int,
        service: str,
        args: Any,
        headers: dict[str, str] | None,
        timeout: float,
        options: dict[str, Any] | None,
    ) -> p.Call:
        # The broker judges the name; one that is too long would cost the frame that it is in.
        if len(service) > MAX_SUBJECT_BYTES:
            check_subject(service)
        payload = Raw(pack(args, headers, service, self._peer.max_payload))
        return p.Call(ref, service, payload, milliseconds(timeout, "timeout") or 1, options)


def options_of(kind: type[Options], given: Options | None, how: dict[str, Any]) -> Options:
    """Options that were given as such, or by name; raises TypeError or ValueError when they make no sense."""
    if given is not None and how:
        raise TypeError(f"give either options= or {', '.join(how)}, not both")
    return given or kind(**how)
