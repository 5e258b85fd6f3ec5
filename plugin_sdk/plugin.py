"""A plugin: what it is called, what it handles, and the hooks of its life."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from plugin_sdk.client import DEFAULT_TIMEOUT, Bus
from plugin_sdk.declare import Declaration, Decorator, hook, marked_methods, service, subscription
from plugin_sdk.subscriptions import in_thread
from plugin_sdk.wire.errors import BusError, ConnectionLost
from plugin_sdk.wire.subjects import check_name


class Plugin:
    """A plugin of the mesh. Declare handlers with the decorators, then call run(); or subclass and do the same.

    Args:
        name: as others know it; a letter, then letters, digits, `_` or `-`.
        version: its version, by PEP 440.
        requires: what must be running before it, such as `["logger>=1.0"]`; informational for a plugin that is
            started by hand, as the broker reads the manifest.
        instance: tells several processes of one plugin apart; empty for the only one.
        description: one line for status displays.
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
    ) -> None:
        self.name = check_name(name)
        self.version = version
        self.requires = list(requires or ())
        self.instance = instance
        self.description = description
        self.config: dict[str, Any] = {}
        self.log = logging.getLogger(name)
        self.declared: list[tuple[Declaration, Callable[..., Any]]] = list(marked_methods(self))
        self._bus: Bus | None = None

    @property
    def bus(self) -> Bus:
        """The session with the broker; raises ConnectionLost before the plugin has been started."""
        if self._bus is None:
            raise ConnectionLost(f"plugin {self.name!r} is not running: call run() first", "unavailable")
        return self._bus

    @property
    def data_dir(self) -> Path:
        """A directory of its own, made on first use."""
        given = os.environ.get("BROKER_DATA_DIR")
        path = Path(given) if given else Path(tempfile.gettempdir()) / f"plugmesh-{os.getuid()}" / self.name
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

    def stream(self, service: str, args: Any = None, *, timeout: float = DEFAULT_TIMEOUT) -> AsyncIterator[Any]:
        """Call a service that streams its reply: see Bus.stream."""
        return self.bus.stream(service, args, timeout=timeout)

    def run(self) -> None:
        """Register, serve until the broker or a signal says stop, clean up, and end the process."""
        from plugin_sdk.runner import run  # the runner knows the plugin, so it cannot be imported above

        run(self)

    def attach(self, bus: Bus) -> None:
        """Use this session from now on: called by the runner and by the test mesh."""
        self._bus = bus

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
            self.log.exception("initialize failed")
            raise BusError("bad_config", f"initialize: {type(error).__name__}: {error}") from error

    async def go(self) -> None:
        """Start, then subscribe and serve: the command `$plugin.start`."""
        await self._run_hook("start")
        for declaration, handler in self.declared:
            if declaration.what == "subscription":
                await self.bus.subscribe(declaration.name, handler, options=declaration.options)
            elif declaration.what == "service":
                full = f"{self.name}.{declaration.name}"
                await self.bus.serve(full, handler, options=declaration.options)

    async def halt(self) -> None:
        """Take nothing new, finish what is in hand, stop: the command `$plugin.stop`."""
        if self.bus.is_open:
            for each in self.bus.services():
                if each.announced:
                    await self.bus.withdraw(each.name)
            for subscribed in self.bus.subscriptions():
                await subscribed.unsubscribe()
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
        events = [each.stats for each in self._bus.subscriptions()]
        requests = [each for each in self._bus.services() if each.announced]
        every = events + [each.stats for each in requests]
        handled = sum(each.handled for each in every)
        now = perf_counter()
        busy = [(now - each.busy_since, "") for each in every if each.busy_since]
        return {
            "events_handled": sum(each.handled for each in events),
            "events_failed": sum(each.failed for each in events),
            "requests_handled": sum(each.stats.handled for each in requests),
            "requests_failed": sum(each.stats.failed for each in requests),
            "mean_secs": sum(each.total_time for each in every) / handled if handled else 0.0,
            "longest_secs": max((each.longest for each in every), default=0.0),
            "busy_secs": max(busy)[0] if busy else 0.0,
        }

    async def _run_hook(self, name: str, *args: Any) -> Any:
        result = await getattr(self, name)(*args)
        for declaration, handler in self.declared:
            if declaration.what == "hook" and declaration.name == name:
                result = await _as_async(handler)(*args)
        return result


def _as_async(handler: Callable[..., Any]) -> Callable[..., Any]:
    from inspect import iscoroutinefunction

    return handler if iscoroutinefunction(handler) else in_thread(handler)
