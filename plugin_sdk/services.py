"""Services of this process: requests in, handlers run, replies out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import aclosing
from inspect import isasyncgenfunction
from typing import Any

from msgspec import Raw

from plugin_sdk.binding import CALLER, binder, wants_caller
from plugin_sdk.calls import RequestFailed, is_undecided
from plugin_sdk.events import decode_body
from plugin_sdk.failures import error_packet, is_answer, verdict
from plugin_sdk.handlers import Handler, HandlerThreads, as_coroutine, time_limit
from plugin_sdk.inlets import ACK_SECS
from plugin_sdk.jobs import Job
from plugin_sdk.options import ServiceOptions
from plugin_sdk.peer import Peer
from plugin_sdk.tally import Tally
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import BARE_HEADS, decode_payload, encode, encode_payload
from plugin_sdk.wire.errors import BusError
from plugin_sdk.workers import Workers

log = logging.getLogger("plugin_sdk")


class Servers:
    """The services of a peer by name.

    Args:
        peer: whose they are.
        threads: where plain handlers run.
    """

    def __init__(self, peer: Peer, threads: HandlerThreads) -> None:
        self.threads = threads
        self.tally = Tally()
        self._peer = peer
        self._services: dict[str, Service] = {}
        self._jobs: dict[int, tuple[Service, Job]] = {}
        peer.add_part(self, {p.Request: self._on_request, p.Cancel: self._on_cancel, p.Credit: self._on_credit})

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services.values())

    async def add(self, service: Service, timeout: float = ACK_SECS) -> None:
        """Register a service with the broker."""
        await self._peer.until_open(timeout)
        self._claim(service)
        try:
            await self._serve(service, timeout)
        except BaseException as error:
            self._services.pop(service.name, None)
            if is_undecided(error):
                self._take_back(service)
            raise
        if self._services.get(service.name) is service:
            service.in_force = True
            self.tally.begin(service.stats)
        else:
            # Withdrawn while the broker had not answered yet.
            self._take_back(service)

    def add_unannounced(self, service: Service) -> None:
        """Answer requests that only the broker itself can make."""
        self._claim(service)
        service.announced = False

    async def remove(self, name: str, timeout: float = ACK_SECS) -> None:
        """Take no new requests to a service, and return once those in hand are answered."""
        service = self._services.get(name)
        if service is None:
            return
        try:
            in_force, service.in_force = service.in_force, False
            if in_force and service.asked_for and self._peer.is_open:  # the session begins before all is restored in it
                ref = self._peer.calls.next_ref()
                await self._peer.calls.ask(p.Withdraw(ref, name), ref, timeout)
        except RequestFailed as error:
            # Whatever else the reason is, it is not in force any more.
            if error.code == "timeout":
                raise
        finally:
            service.in_force = False
            await service.workers.finish()
            self._services.pop(name, None)
            self.tally.close(service.stats)

    async def restore(self, timeout: float) -> None:
        """Register again, in a new session; what the broker refuses is logged with its reason."""
        await asyncio.gather(*(self._restore_one(each, timeout) for each in self if each.in_force))

    def reset(self) -> None:
        """The session is gone: nobody waits for the answers; the broker's own commands are carried out all the same."""
        for service, job in self._jobs.values():
            job.wanted = False
            if service.announced:
                job.cancel()
        self._jobs.clear()
        for service in self:
            service.asked_for = False

    def end(self, error: BusError | None) -> None:
        """There will be no further session."""
        for service in self._services.values():
            service.in_force = False
            if error is None:
                service.workers.close()

    def answer(self, job: Job, packet: p.Packet) -> None:
        """Send a packet about a request, if anybody still waits for it: its number may be another one's by now."""
        if job.wanted:
            self._peer.send(packet)

    def pack(self, value: Any) -> Raw:
        """A value as the payload of an answer.

        Raises:
            BusError: code `too_large`.
            TypeError: msgpack cannot express it.
        """
        body = encode(value)
        size = len(body)
        payload = BARE_HEADS[size] + body if size < 256 else encode_payload(body)
        if len(payload) > self._peer.max_payload:
            text = f"the answer has {len(payload)} bytes, the broker takes {self._peer.max_payload}: stream it"
            raise BusError("too_large", text)
        return Raw(payload)

    def done(self, job: Job) -> None:
        """A request is not in hand any more."""
        if job.wanted:
            self._jobs.pop(job.number, None)
        if not self._jobs:
            # There is nobody else's answer that this one could share a frame with.
            self._peer.out.flush()

    def _claim(self, service: Service) -> None:
        if service.name in self._services:
            raise BusError("bad_request", f"service {service.name!r} is served by this session already")
        self._services[service.name] = service

    async def _serve(self, service: Service, timeout: float) -> None:
        service.asked_for = True
        ref = self._peer.calls.next_ref()
        options: dict[str, Any] = {"concurrency": service.options.concurrency}
        if service.wants_caller:
            options["caller"] = True
        await self._peer.calls.ask(p.Serve(ref, service.name, options), ref, timeout)

    async def _restore_one(self, service: Service, timeout: float) -> None:
        if not service.in_force:
            return  # it was withdrawn in the meantime
        try:
            await self._serve(service, timeout)
        except RequestFailed as error:
            if error.code in ("lost", "timeout"):
                raise
            log.error("the service %s could not be restored: %s", service.name, error)
            service.in_force = False

    def _take_back(self, service: Service) -> None:
        """It may be in force by now, and nobody would ever answer."""
        if self._peer.is_open:
            self._peer.send(p.Withdraw(self._peer.calls.next_ref(), service.name))

    def _on_request(self, packet: p.Request) -> None:
        service = self._services.get(packet.service)
        if service is None:
            text = f"{self._peer.profile.name} does not serve {packet.service!r}"
            self._peer.send(p.Error(packet.request, "unavailable", text))
            return
        options = packet.options
        job = Job(packet.request, packet.payload, options is not None and options.get("stream") is True)
        if options is not None and service.wants_caller:
            job.caller = options.get(CALLER)
        job.credit = self._peer.chunk_credit
        self._jobs[packet.request] = (service, job)
        service.workers.queue.append(job)
        self._peer.touched[service.workers] = None

    def _on_cancel(self, packet: p.Cancel) -> None:
        found = self._jobs.pop(packet.ref, None)
        if found is not None:
            found[1].cancel()

    def _on_credit(self, packet: p.Credit) -> None:
        if not packet.stream:
            self._peer.out.add_credit(packet.amount)
            return
        found = self._jobs.get(packet.stream)
        if found is not None:
            found[1].add_credit(packet.amount)


class Service:
    """One service: a name and a handler.

    Args:
        servers: those of the bus.
        name: the full name, such as `users.get`.
        handler: coroutine function, plain function (runs in the thread pool) or async generator function (streams);
            one with a keyword-only parameter `caller` is told by the broker who asks.
        options: limits.

    Raises:
        TypeError: the handler is none of these.
    """

    workers_type: type[Workers[Job]] = Workers

    def __init__(self, servers: Servers, name: str, handler: Handler, options: ServiceOptions) -> None:
        self.name = name
        self.options = options
        self.announced = True
        self.in_force = False
        self.asked_for = False
        self.wants_caller = wants_caller(handler)
        self._servers = servers
        self._what = f"the request to {name!r}"
        self._bind = binder(handler, name)
        self._streams = isasyncgenfunction(handler)
        self._handler = handler if self._streams else as_coroutine(handler, servers.threads, options.timeout)
        self.workers = self.workers_type(self._handle, self._failed, options.concurrency, f"service {name}")
        self.stats = self.workers.stats

    async def _handle(self, job: Job, content: tuple[dict[str, str], bytes] | None = None) -> int:
        if not job.wanted:
            return 0
        job.task = task = self.workers.task
        try:
            job.headers, body = content or decode_payload(job.payload)
            args, named = self._bind(decode_body(body, self._what))
            if self.wants_caller:
                named = {**named, CALLER: job.caller or {}}
            if self._streams:
                await self._stream(job, args, named)
            else:
                result = await self._handler(*args, **named)
                self._servers.answer(job, p.Reply(job.number, self._servers.pack(result)))
            return 1
        except asyncio.CancelledError:
            others = task.cancelling() - job.cancelled if task is not None else 0
            if others:
                self._servers.answer(job, p.Error(job.number, "shutting_down", "the plugin stopped working on this"))
            if others or not job.cancelled:
                raise
            return 0
        finally:
            job.task = None
            if job.cancelled and task is not None:
                # Only this request was cancelled, not the worker that happened to run it.
                task.uncancel()
            self._servers.done(job)

    async def _stream(self, job: Job, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not job.stream:
            raise BusError("bad_request", f"{self.name!r} streams its reply: use stream() instead of call()")
        # The generator is closed here and now when the request ends early, not when it is collected as garbage.
        async with time_limit(self.options.timeout), aclosing(self._handler(*args, **named)) as pieces:
            async for piece in pieces:
                await job.room()
                self._servers.answer(job, p.Chunk(job.number, self._servers.pack(piece)))
        self._servers.answer(job, p.Reply(job.number, Raw(encode_payload(b""))))

    def _failed(self, job: Job, error: BaseException) -> None:
        code, text, details = verdict(error)
        if not is_answer(error) or error.__cause__ is not None:
            log.error(
                "service %s failed on request %d %s: %s",
                self.name,
                job.number,
                job.headers.get("message-id", "(no id)"),
                text,
                exc_info=error,
            )
        self._servers.answer(job, error_packet(job.number, code, text, details))
