"""The bus as programs see it: publish, subscribe, call, stream, serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from plugin_sdk.calls import Stream, decode_reply
from plugin_sdk.discovery import find_broker
from plugin_sdk.link import DealerLink
from plugin_sdk.peer import Peer
from plugin_sdk.registration import Profile
from plugin_sdk.services import Servers, Service, ServiceOptions
from plugin_sdk.subscriptions import Handler, Inlets, SubscribeOptions, Subscription
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode_payload, publish_head
from plugin_sdk.wire.errors import BusError, CallError
from plugin_sdk.wire.limits import EVENT_OVERHEAD, FRAME_TARGET
from plugin_sdk.wire.subjects import check_subject

DEFAULT_TIMEOUT = 5.0
_CACHED_SUBJECTS = 10_000
_encode = msgspec.msgpack.Encoder().encode


class Bus:
    """A session with the broker, for one event loop.

    Args:
        peer: the session.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._inlets = Inlets(peer)
        self._servers = Servers(peer)
        self._heads: dict[str, bytes] = {}

    @property
    def is_open(self) -> bool:
        """Whether there is a session right now; it comes back by itself."""
        return self._peer.is_open

    @property
    def ended(self) -> asyncio.Future[BusError | None]:
        """Done when the session will not come back, with the reason, or None after close()."""
        return self._peer.ended

    async def open(self) -> None:
        """Connect and register; raises RegistrationError."""
        await self._peer.open()

    async def close(self) -> None:
        """Send what is pending, say goodbye and disconnect."""
        await self._peer.close()

    async def publish(
        self, subject: str, data: Any = None, *, headers: dict[str, str] | None = None, retain: bool = False
    ) -> None:
        """Publish an event.

        Waits only when a subscriber with the policy `block` is slow, or while the broker is away.

        Args:
            subject: what it is about, such as `user.login`.
            data: anything msgpack can express; encoded here, so it may be changed afterwards.
            headers: text to text, passed on untouched.
            retain: keep it as the subject's last value.

        Raises:
            BadSubject: the subject breaks the grammar.
            BusError: code `bad_request` when `data` cannot be encoded, `too_large` when it is over the limit.
            ConnectionLost: there is no broker.
        """
        payload = _pack(data, headers, subject, self._peer.max_payload)
        cost = len(payload) + EVENT_OVERHEAD
        head = (self._heads.get(subject) if not retain else None) or self._head(subject, retain)
        peer = self._peer
        if peer.outbox.allowance <= 0:
            await peer.may_publish()
        outbox = peer.outbox
        outbox.allowance -= cost
        outbox.parts += (head, payload)
        outbox.count += 1
        outbox.size += cost
        if not outbox.listed:
            outbox.listed = True
            peer.plan_flush()
        if outbox.size > FRAME_TARGET:
            # A tight loop of publishes never returns to the event loop by itself.
            peer.flush()
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
        """
        return Subscription(self._inlets, pattern, handler, options or SubscribeOptions(**how))

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
            CallError: with the code of what happened: `unavailable`, `timeout`, `failed`, `denied`, `lost`, …
            ConnectionLost: there is no broker.
        """
        if not self._peer.is_open:
            await self._peer.until_open(timeout)
        calls = self._peer.calls
        ref = calls.next_ref()
        packet = _call_packet(ref, service, args, headers, timeout, wait_ready, to, self._peer.max_payload)
        return decode_reply(await calls.ask(packet, ref, timeout, cancellable=True), service)

    async def stream(
        self,
        service: str,
        args: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        wait_ready: float = 0.0,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[Any]:
        """Call a service that streams its reply, and iterate over the pieces.

        `timeout` is for the whole stream. The service waits when the pieces are not taken.

        Raises:
            CallError: as call(), also in the middle of the stream.
        """
        await self._peer.until_open(timeout)
        ref = self._peer.calls.next_ref()
        packet = _call_packet(
            ref, service, args, headers, timeout, wait_ready, None, self._peer.max_payload, stream=True
        )
        stream = self._peer.calls.open_stream(packet)
        try:
            async with asyncio.timeout(timeout + 1.0):
                async for piece in self._pieces(stream, ref, service):
                    yield piece
        except TimeoutError:
            raise CallError("timeout", "no answer from the broker in time") from None
        finally:
            self._peer.calls.drop_stream(ref)

    async def serve(
        self, service: str, handler: Callable[..., Any], *, options: ServiceOptions | None = None, **how: Any
    ) -> None:
        """Answer requests to a service; its name begins with the plugin's own.

        Args:
            service: the full name.
            handler: coroutine function, plain function or async generator function.
            options: limits; or give its fields by name: concurrency, timeout.

        Raises:
            CallError: the broker refused it.
        """
        check_subject(service)
        await self._servers.add(Service(self._servers, service, handler, options or ServiceOptions(**how)))

    async def serve_unannounced(self, service: str, handler: Callable[..., Any]) -> None:
        """Answer the broker's own requests, such as the life-cycle commands."""
        added = Service(self._servers, service, handler, ServiceOptions())
        await self._servers.add(added, announced=False)

    async def withdraw(self, service: str) -> None:
        """Take no new requests to a service and return once those in hand are answered."""
        await self._servers.remove(service)

    def subscriptions(self) -> list[Subscription]:
        """Those in force, with their figures."""
        return list(self._inlets)

    def services(self) -> list[Service]:
        """Those registered, with their figures."""
        return list(self._servers)

    def _head(self, subject: str, retain: bool) -> bytes:
        check_subject(subject)
        head = publish_head(subject, p.RETAIN if retain else 0)
        if not retain:
            if len(self._heads) >= _CACHED_SUBJECTS:
                self._heads.clear()
            self._heads[subject] = head
        return head

    async def _pieces(self, stream: Stream, ref: int, service: str) -> AsyncIterator[Any]:
        taken = 0
        while (piece := await stream.next()) is not None:
            taken += 1
            if taken % 16 == 0:
                self._peer.send(p.Credit(ref, 16))
            yield decode_reply(piece, service)


@asynccontextmanager
async def connect(
    endpoint: str | None = None,
    key: str | Path | None = None,
    home: str | Path | None = None,
    name: str = "client",
) -> AsyncIterator[Bus]:
    """Connect to a broker as a client, by default to the one of this user's home.

    Args:
        endpoint: default: BROKER_ENDPOINT, else the local socket in the home.
        key: a key or the path of a key file; default: BROKER_KEY, else the operator's key in the home.
        home: default: BROKER_HOME, else ~/.plugmesh.
        name: how the broker shows this client.

    Raises:
        ConnectionLost: no key was found.
        RegistrationError: nobody listens there, or the broker refused us; lists what every attempt met.
    """
    address = find_broker(endpoint, key, home)
    peer = Peer(DealerLink(address), Profile("client", name), address.token, address.endpoint)
    bus = Bus(peer)
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


def _pack(data: Any, headers: dict[str, str] | None, what: str, limit: int) -> bytes:
    try:
        payload = encode_payload(_encode(data), headers)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise BusError("bad_request", f"the data for {what!r} cannot be encoded: {error}") from None
    if len(payload) > limit:
        raise BusError("too_large", f"the data for {what!r} has {len(payload)} bytes, the broker takes {limit}")
    return payload


def _call_packet(
    ref: int,
    service: str,
    args: Any,
    headers: dict[str, str] | None,
    timeout: float,
    wait_ready: float,
    to: int | None,
    limit: int,
    *,
    stream: bool = False,
) -> p.Call:
    options: dict[str, Any] = {}
    if wait_ready > 0:
        options["wait_ready_ms"] = round(wait_ready * 1000)
    if to is not None:
        options["to"] = to
    if stream:
        options["stream"] = True
    payload = Raw(_pack(args, headers, service, limit))
    return p.Call(ref, service, payload, max(1, round(timeout * 1000)), options or None)
