"""Services of this process: requests in, handlers run, replies out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import Parameter, isasyncgenfunction, iscoroutinefunction, signature
from time import perf_counter
from typing import Any

from msgspec import Raw

from plugin_sdk.events import decode_body
from plugin_sdk.peer import Peer
from plugin_sdk.subscriptions import ACK_SECS, HandlerStats, in_thread
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_payload, encode, encode_payload
from plugin_sdk.wire.errors import BusError
from plugin_sdk.workers import Workers

log = logging.getLogger("plugin_sdk")


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How requests to one service are handled.

    Args:
        concurrency: requests in hand at once; the broker queues what is beyond it.
        timeout: seconds a handler may take, or None; the caller's own deadline holds as well.
    """

    concurrency: int = 64
    timeout: float | None = None


@dataclass(slots=True, eq=False)
class _Job:
    """One request in hand."""

    number: int
    payload: Raw
    stream: bool
    headers: dict[str, str]
    caller: dict[str, Any] | None = None
    task: asyncio.Task[Any] | None = None
    cancelled: bool = False
    credit: int = 0
    waiter: asyncio.Future[None] | None = None

    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled it by now."""
        return self.cancelled


class Servers:
    """The services of a peer by name."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._services: dict[str, Service] = {}
        self._jobs: dict[int, tuple[Service, _Job]] = {}
        peer.add_part(self, {p.Request: self._on_request, p.Cancel: self._on_cancel, p.Credit: self._on_credit})

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services.values())

    async def add(self, service: Service, *, announced: bool = True, timeout: float = ACK_SECS) -> None:
        """Register a service; one that is not announced only the broker itself can reach."""
        self._services[service.name] = service
        service.announced = announced
        if not announced:
            return
        try:
            await self._peer.until_open(timeout)
            await self._serve(service, timeout)
        except BaseException:
            self._services.pop(service.name, None)
            raise

    async def remove(self, name: str, timeout: float = ACK_SECS) -> None:
        """Take no new requests to a service, and return once those in hand are answered."""
        service = self._services.get(name)
        if service is None:
            return
        if service.announced and self._peer.is_open:
            ref = self._peer.calls.next_ref()
            await self._peer.calls.ask(p.Withdraw(ref, name), ref, timeout)
        await service.workers.drained()
        self._services.pop(name, None)
        service.workers.close()

    async def restore(self, timeout: float) -> None:
        """Register again, in a new session."""
        for service in list(self._services.values()):
            if service.announced:
                await self._serve(service, timeout)

    def reset(self) -> None:
        """The session is gone: nobody waits for the answers."""
        for number in list(self._jobs):
            self._cancel(number)

    def send(self, packet: p.Packet) -> None:
        """Answer."""
        self._peer.send(packet)

    def done(self, number: int) -> None:
        """A request has been answered."""
        self._jobs.pop(number, None)

    async def _serve(self, service: Service, timeout: float) -> None:
        ref = self._peer.calls.next_ref()
        options: dict[str, Any] = {"concurrency": service.options.concurrency}
        if service.wants_caller:
            options["caller"] = True
        await self._peer.calls.ask(p.Serve(ref, service.name, options), ref, timeout)

    def _on_request(self, packet: p.Request) -> None:
        service = self._services.get(packet.service)
        if service is None:
            text = f"{self._peer.profile.name} does not serve {packet.service!r}"
            self.send(p.Error(packet.request, "unavailable", text))
            return
        stream = packet.options is not None and packet.options.get("stream") is True
        caller = packet.options.get("caller") if service.wants_caller and packet.options else None
        job = _Job(packet.request, packet.payload, stream, {}, caller, credit=service.chunk_credit)
        self._jobs[packet.request] = (service, job)
        service.workers.queue.append(job)
        self._peer.touched[service.workers] = None

    def _on_cancel(self, packet: p.Cancel) -> None:
        self._cancel(packet.ref)

    def _on_credit(self, packet: p.Credit) -> None:
        if not packet.stream:
            self._peer.add_credit(packet.amount)
            return
        found = self._jobs.get(packet.stream)
        if found is not None:
            job = found[1]
            job.credit += packet.amount
            _wake(job)

    def _cancel(self, number: int) -> None:
        found = self._jobs.pop(number, None)
        if found is not None:
            job = found[1]
            job.cancelled = True
            if job.task is not None:
                job.task.cancel()


class Service:
    """One service: a name and a handler.

    Args:
        servers: those of the bus.
        name: the full name, such as `users.get`.
        handler: coroutine function, plain function (runs in the thread pool) or async generator function (streams);
            one with a keyword-only parameter `caller` is told by the broker who asks.
        options: limits.
    """

    def __init__(self, servers: Servers, name: str, handler: Callable[..., Any], options: ServiceOptions) -> None:
        self.name = name
        self.options = options
        self.announced = True
        self.chunk_credit = 64
        self.stats = HandlerStats()
        self._servers = servers
        self._bind = _binder(handler)
        self._streams = isasyncgenfunction(handler)
        caller = signature(handler).parameters.get("caller")
        self.wants_caller = caller is not None and caller.kind is Parameter.KEYWORD_ONLY
        is_async = iscoroutinefunction(handler) or self._streams
        self._handler: Callable[..., Any] = handler if is_async else in_thread(handler)
        self.workers: Workers[_Job] = Workers(self._handle, options.concurrency, f"service {name}")

    async def _handle(self, job: _Job) -> None:
        if job.is_cancelled():
            return
        worker = asyncio.current_task()
        assert worker is not None, "handlers run inside the tasks of Workers"
        job.task = worker
        started = self.stats.busy_since = perf_counter()
        try:
            if self.options.timeout is None:
                await self._answer(job)
            else:
                async with asyncio.timeout(self.options.timeout):
                    await self._answer(job)
            self.stats.add(perf_counter() - started)
        except asyncio.CancelledError:
            if not job.is_cancelled():
                self._fail(job, BusError("shutting_down", "the plugin stopped while it worked on this"))
                raise
            # Only this request was cancelled, not the worker that happened to run it.
            worker.uncancel()
        except Exception as error:  # noqa: BLE001 - a handler is the user's code: answered and logged, never fatal
            self._fail(job, error)
        finally:
            self.stats.busy_since = 0.0
            job.task = None
            self._servers.done(job.number)

    async def _answer(self, job: _Job) -> None:
        job.headers, body = decode_payload(job.payload)
        args, named = self._bind(decode_body(body, f"the request to {self.name!r}"))
        if self.wants_caller:
            named = {**named, "caller": job.caller or {}}
        if not self._streams:
            result = await self._handler(*args, **named)
            self._servers.send(p.Reply(job.number, Raw(encode_payload(encode(result)))))
            return
        if not job.stream:
            raise BusError("bad_request", f"{self.name!r} streams its reply: use stream() instead of call()")
        async for piece in self._handler(*args, **named):
            await self._room(job)
            self._servers.send(p.Chunk(job.number, Raw(encode_payload(encode(piece)))))
        self._servers.send(p.Reply(job.number, Raw(encode_payload(b""))))

    async def _room(self, job: _Job) -> None:
        """Wait until the caller takes another chunk."""
        while job.credit <= 0:
            job.waiter = asyncio.get_running_loop().create_future()
            await job.waiter
        job.credit -= 1

    def _fail(self, job: _Job, error: Exception) -> None:
        self.stats.failed += 1
        if isinstance(error, BusError):
            self._servers.send(p.Error(job.number, error.code, error.text, getattr(error, "details", None)))
            return
        if isinstance(error, TimeoutError):
            text = f"the handler of {self.name!r} exceeded its time limit of {self.options.timeout} s"
        else:
            text = f"{type(error).__name__}: {error}"
        log.error("service %s failed on request %d: %s", self.name, job.number, text, exc_info=error)
        self._servers.send(p.Error(job.number, "failed", text[:4000]))


Binding = tuple[tuple[Any, ...], dict[str, Any]]


def _binder(handler: Callable[..., Any]) -> Callable[[Any], Binding]:
    """How a request's body becomes arguments.

    No body calls a handler without arguments; a map whose keys are the handler's parameters is passed by name;
    anything else is the one positional argument.
    """
    every = signature(handler).parameters.values()
    parameters = [each for each in every if each.kind is not Parameter.VAR_POSITIONAL and each.name != "caller"]
    open_ended = any(each.kind is Parameter.VAR_KEYWORD for each in parameters)
    named = {each.name for each in parameters if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)}
    required = {each.name for each in parameters if each.name in named and each.default is Parameter.empty}

    def bind(body: Any) -> Binding:
        if isinstance(body, dict) and required <= body.keys() and (open_ended or body.keys() <= named) and (named or not body):
            return (), body
        if body is None and not required:
            return (), {}
        if not parameters or len(required) > 1:
            missing = ", ".join(sorted(required - body.keys())) if isinstance(body, dict) else ""
            wanted = f"missing {missing}" if missing else f"it takes {', '.join(sorted(named)) or 'no arguments'}"
            raise BusError("bad_request", f"the arguments do not fit: {wanted}")
        return (body,), {}

    return bind


def _wake(job: _Job) -> None:
    if job.waiter is not None and not job.waiter.done():
        job.waiter.set_result(None)
