"""What the daemon does to stop: the phases of the shutdown, and the count of what they leave behind."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from broker.core import Router
from broker.core.notices import SessionLost
from broker.daemon.denials import Denials
from broker.daemon.records import Records
from broker.edge.server import Edge
from broker.shutdown import windows
from broker.shutdown.phases import Phase
from broker.store import Store
from broker.supervisor.supervisor import Supervisor
from plugin_sdk.client import Bus

log = logging.getLogger("broker.shutdown")

AT_REST = ("stopped", "failed", "disabled")


@dataclass(frozen=True, slots=True)
class Rooms:
    """Everything that a stop must end."""

    router: Router
    edge: Edge
    bus: Bus
    supervisor: Supervisor
    store: Store
    records: Records
    denials: Denials
    node: str
    socket: Path


class Stopping:
    """The phases of an orderly stop (SHD-2).

    Args:
        rooms: what is to be ended.
        tasks: what the daemon itself still does.
    """

    def __init__(self, rooms: Rooms, tasks: Collection[asyncio.Task[None]]) -> None:
        self._rooms = rooms
        self._tasks = tasks
        self._waiting: Counter[str] = Counter()
        self._unwritten = 0

    def phases(self) -> list[Phase]:
        """In order; the last one ends with the time for everything."""
        return [
            Phase("finish requests", self._finish_requests, windows.FINISH_REQUESTS, self._requests),
            Phase("stop plugins", self._stop_plugins, windows.STOP_PLUGINS, self._plugins),
            Phase("flush the database", self._flush, windows.FLUSH_WRITES, self._writes),
            Phase("close the bus", self._close_bus, windows.CLOSE_BUS),
            Phase("close the database", self._close_database, windows.CLOSE_DATABASE, self._writes),
        ]

    def session_lost(self, notice: SessionLost) -> None:
        """Count the events that a plugin leaves behind when it stops."""
        if notice.role == "plugin" and notice.waiting:
            self._waiting[notice.name] += notice.waiting

    def tell_waiting(self) -> None:
        """Log how many events were neither delivered nor dropped before, by plugin."""
        for name, number in sorted(self._waiting.items()):
            log.warning("left undone: %d events were still waiting for plugin %s", number, name)

    async def _finish_requests(self, limit: float) -> str:
        router = self._rooms.router
        router.drain()
        if await self._rooms.edge.until(lambda: not router.in_flight(), limit):
            return ""
        unfinished = self._requests()
        router.end_requests(f"the broker stops and has waited {limit:.1f} s for this request", time.monotonic())
        self._rooms.edge.wake()
        return f"{unfinished} still running, ended with shutting_down"

    async def _stop_plugins(self, limit: float) -> str:
        for task in list(self._tasks):
            task.cancel()
        return ", ".join(await self._rooms.supervisor.stop_all(limit))

    async def _flush(self, limit: float) -> str:
        store = self._rooms.store
        self._rooms.denials.flush()
        self._rooms.records.audit("broker", "stop", self._rooms.node, "done", f"process {os.getpid()}")
        self._unwritten = await store.flush(limit)
        if not self._unwritten:
            return ""
        state = store.state()
        return f"{self._unwritten} writes did not reach the database, which is {state.status}: {state.reason}"

    async def _close_bus(self, limit: float) -> str:
        self._count_waiting()
        self._rooms.router.say_goodbye("shutting_down", "the broker stops")
        await self._rooms.bus.close()
        unsent = await self._rooms.edge.close(limit)
        self._rooms.socket.unlink(missing_ok=True)
        return f"what was sent last was not taken by {unsent} of the peers" if unsent else ""

    async def _close_database(self, limit: float) -> str:
        lost = await asyncio.to_thread(self._rooms.store.close, limit if not self._unwritten else 0.0)
        further = lost - self._unwritten
        return f"{further} more writes did not reach the database" if further > 0 else ""

    def _count_waiting(self) -> None:
        """Plugins that were started by hand outlive the broker, but not what waits for them."""
        for session in self._rooms.router.snapshot(time.monotonic()).sessions:
            if session.role == "plugin" and session.waiting:
                self._waiting[session.name] += session.waiting

    def _requests(self) -> str:
        running = self._rooms.router.requests.running()
        return ", ".join(f"{number} of {service}" for service, number in sorted(running.items()))

    def _plugins(self) -> str:
        views = self._rooms.supervisor.snapshot()
        return ", ".join(f"{view.name} ({view.state})" for view in views if view.state not in AT_REST)

    def _writes(self) -> str:
        state = self._rooms.store.state()
        reason = f" ({state.reason})" if state.reason else ""
        return f"{state.pending} writes, the database is {state.status}{reason}"
