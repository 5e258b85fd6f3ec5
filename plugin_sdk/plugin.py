"""A plugin: what it is called, what it handles, and the hooks of its life."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from plugin_sdk.blocking import Blocking
from plugin_sdk.client import DEFAULT_TIMEOUT, Bus
from plugin_sdk.declare import Declaration, Decorator, hook, marked_methods, service, subscription
from plugin_sdk.discovery import find_home
from plugin_sdk.handlers import THREADS, Handler, as_coroutine
from plugin_sdk.runner import run
from plugin_sdk.wire.errors import BusError, ConnectionLost
from plugin_sdk.wire.subjects import check_name
from plugin_sdk.workers import Workers


class Plugin:
    """A plugin of the mesh. Declare handlers with the decorators, then call run(); or subclass and do the same.

    Args:
        name: as others know it; a letter, then letters, digits, `_` or `-`.
        version: its version, by PEP 440.
        requires: what must be running before it, such as `["logger>=1.0"]`; informational for a plugin that is
            started by hand, as the broker reads the manifest.
        instance: tells several processes of one plugin apart; empty for the only one.
        description: one line for status displays.
        threads: how many plain (not async) handlers may run at once.
    """

    subscribe = Decorator(subscription)
    service = Decorator(service)
    on_initialize = Decorator(hook("initialize"))
    on_start = Decorator(hook("start"))
    on_stop = Decorator(hook("stop"))
    on_cleanup = Decorator(hook("cleanup"))
    on_health = Decorator(hook("health"))

    def __init__(
        self,
        name: str,
        *,
        version: str = "0.1.0",
        requires: list[str] | None = None,
        instance: str = "",
        description: str = "",
        threads: int = THREADS,
    ) -> None:
        self.name = check_name(name)
        self.version = version
        self.requires = list(requires or ())
        self.instance = instance
        self.description = description
        self.threads = threads
        self.config: dict[str, Any] = {}
        self.log = logging.getLogger(name)
        self.declared: list[tuple[Declaration, Handler]] = list(marked_methods(self))
        self._bus: Bus | None = None
        self._blocking: Blocking | None = None
        self._data_dir: Path | None = None
        self._running = False

    @property
    def bus(self) -> Bus:
        """The session with the broker; raises ConnectionLost before the plugin has been started."""
        if self._bus is None:
            raise ConnectionLost(f"plugin {self.name!r} is not running: call run() first", "unavailable")
        return self._bus

    @property
    def blocking(self) -> Blocking:
        """The bus for plain handlers, which run in threads: `plugin.blocking.publish(…)`."""
        if self._blocking is None:
            raise ConnectionLost(f"plugin {self.name!r} is not running: call run() first", "unavailable")
        return self._blocking

    @property
    def mount(self) -> str:
        """The name under which its services appear: its own, or with those of its parents before it."""
        # A process that inherited the environment of another plugin is not mounted there.
        own = os.environ.get("BROKER_PLUGIN") == self.name
        return (own and os.environ.get("BROKER_MOUNT")) or self.name

    @property
    def data_dir(self) -> Path:
        """A directory of its own, made on first use; in the broker's home unless the broker gave another."""
        given = os.environ.get("BROKER_DATA_DIR")
        path = self._data_dir or (Path(given) if given else find_home() / "data" / self.name)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    async def initialize(self, config: dict[str, Any]) -> None:
        """Check the configuration; raise to refuse it. Runs before start()."""

    async def start(self) -> None:
        """Acquire resources. Subscriptions and services come into force after it."""

    async def stop(self) -> None:
        """The plugin takes nothing new; what is in hand has been finished."""

    async def cleanup(self) -> None:
        """Release resources. The process ends after it."""

    async def health(self) -> dict[str, Any]:
        """What the plugin says about itself; `{"ok": False, "reason": …}` when it is not well."""
        return {"ok": True}

    async def publish(
        self, subject: str, data: Any = None, *, headers: dict[str, str] | None = None, retain: bool = False
    ) -> None:
        """Publish an event: see Bus.publish."""
        await self.bus.publish(subject, data, headers=headers, retain=retain)

    async def call(
        self,
        service: str,
        args: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        wait_ready: float = 0.0,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Call a service: see Bus.call."""
        return await self.bus.call(service, args, timeout=timeout, wait_ready=wait_ready, headers=headers)

    def stream(
        self,
        service: str,
        args: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        wait_ready: float = 0.0,
        headers: dict[str, str] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Call a service that streams its reply: see Bus.stream."""
        return self.bus.stream(service, args, timeout=timeout, wait_ready=wait_ready, headers=headers)

    def run(self) -> None:
        """Register, serve until the broker or a signal says stop, clean up, and end the process."""
        run(self)

    def attach(self, bus: Bus, data_dir: Path | None = None) -> None:
        """Use this session from now on: called by the runner and by the test mesh."""
        self._bus = bus
        self._blocking = Blocking(bus)
        self._data_dir = data_dir

    def service_names(self) -> list[str]:
        """Full names of the services that were declared."""
        return [f"{self.mount}.{each.name}" for each, _ in self.declared if each.what == "service"]

    def declare(self, declaration: Declaration, handler: Handler) -> None:
        """Remember a handler for start(): what the decorators do.

        Raises:
            RuntimeError: the plugin runs already, so it would never be used.
        """
        if self._running:
            raise RuntimeError(
                f"{declaration.what} {declaration.name!r} comes too late, plugin {self.name!r} runs already:"
                " use plugin.bus.subscribe(…) or plugin.bus.serve(…)"
            )
        self.declared.append((declaration, handler))

    async def begin(self, config: dict[str, Any]) -> None:
        """Initialize with a configuration: the command `$plugin.initialize`.

        Raises:
            BusError: code `bad_config` when the plugin refuses it.
        """
        self.config = config
        try:
            await self._run_hook("initialize", config)
        except BusError:
            raise
        except Exception as error:
            raise BusError("bad_config", f"initialize: {type(error).__name__}: {error}") from error

    async def go(self) -> None:
        """Start, then subscribe and serve: the command `$plugin.start`. All of it holds afterwards, or nothing."""
        await self._run_hook("start")
        self._running = True
        try:
            for declaration, handler in self.declared:
                if declaration.what == "subscription":
                    await self.bus.subscribe(declaration.name, handler, options=declaration.options)
                elif declaration.what == "service":
                    await self.bus.serve(f"{self.mount}.{declaration.name}", handler, options=declaration.options)
        except BaseException:
            await self._withdraw()
            raise

    async def halt(self) -> None:
        """Take nothing new, finish what is in hand, stop: the command `$plugin.stop`."""
        try:
            await self._withdraw()
        finally:
            await self._run_hook("stop")

    async def end(self) -> None:
        """Clean up: the command `$plugin.cleanup`."""
        await self._run_hook("cleanup")

    async def report(self) -> dict[str, Any]:
        """Health: the command `$plugin.health`."""
        return dict(await self._run_hook("health") or {"ok": True})

    def stats(self) -> dict[str, Any]:
        """Figures that travel with heartbeats; times in seconds."""
        if self._bus is None:
            return {}
        events, requests = self._bus.event_figures(), self._bus.request_figures()
        runs = events.handled + events.failed + requests.handled + requests.failed
        spent = events.total_time + requests.total_time
        workers: list[Workers[Any]] = [each.workers for each in self._bus.services() if each.announced]
        workers += [each.workers for each in self._bus.subscriptions() if each.workers is not None]
        busiest = max(workers, key=Workers.busy_secs, default=None)
        return {
            "events_handled": events.handled,
            "events_failed": events.failed,
            "events_filtered": events.filtered,
            "events_waiting": sum(len(each.queue) for each in self._bus.subscriptions()),
            "events_unclaimed": self._bus.unclaimed,
            "requests_handled": requests.handled,
            "requests_failed": requests.failed,
            "handling_secs": spent,
            "mean_secs": spent / runs if runs else 0.0,
            "longest_secs": max(events.longest, requests.longest),
            "traces_withheld": self._bus.traces_withheld,
            "busy_secs": busiest.busy_secs() if busiest is not None else 0.0,
            "busy_in": busiest.name if busiest is not None and busiest.running else "",
        }

    def stuck(self) -> list[str]:
        """Names of the plain handlers that threads are still inside of."""
        return [] if self._bus is None else self._bus.threads.stuck()

    async def _withdraw(self) -> None:
        """End all services and subscriptions, all at once, and finish what is in hand."""
        self._running = False
        services = [self.bus.withdraw(each.name) for each in self.bus.services() if each.announced]
        subscriptions = [each.unsubscribe() for each in self.bus.subscriptions()]
        results = await asyncio.gather(*services, *subscriptions, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _run_hook(self, name: str, *args: Any) -> Any:
        result = await getattr(self, name)(*args)
        for declaration, handler in self.declared:
            if declaration.what == "hook" and declaration.name == name:
                result = await as_coroutine(handler, self.bus.threads, None)(*args)
        return result
