"""Keeping a session: heartbeats while it stands, registering again when it was lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from itertools import count
from random import random
from typing import Any, Protocol

from plugin_sdk.registration import may_help
from plugin_sdk.wire.errors import BusError, ConnectionLost, RegistrationError

SILENT_BEATS = 3  # heartbeats without a word after which the session is taken for dead
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between rounds of attempts to register again

log = logging.getLogger("plugin_sdk")


class Kept(Protocol):
    """What can be kept: a Peer."""

    @property
    def is_open(self) -> bool:
        """Whether the session stands."""

    async def register(self) -> None:
        """Make it anew, as soon as there is a connection; raises RegistrationError."""

    async def restore(self) -> None:
        """Put everything into force in it; raises BusError."""

    def reconnect(self, reason: str) -> None:
        """Lose it, and begin anew over a new connection."""

    def ping(self, number: int) -> None:
        """Ask the broker for a sign of life."""

    def give_up(self, error: BusError) -> None:
        """It will not come back."""


class Keeper:
    """The tasks that keep one session.

    `ready` is set while the session stands with everything in force, and once it is given up; `heard` is the time of
    the last frame, `beat` the seconds between heartbeats.

    Args:
        session: what to keep.
    """

    def __init__(self, session: Kept) -> None:
        self.ready = asyncio.Event()
        self.heard = 0.0
        self.beat = 5.0
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._lost = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """The session was made for the first time."""
        # It may have been lost again in the turn in which it was won.
        if self._session.is_open:
            self.ready.set()
        self._start(self._pulse())
        self._start(self._keep())

    def lost(self) -> None:
        """The session is gone."""
        self.ready.clear()
        self._lost.set()

    def stop(self) -> None:
        """There is nothing to keep any more; nobody needs to wait for it, either."""
        self.ready.set()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def _keep(self) -> None:
        """Register again whenever the session was lost, for as long as that can help."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            pause = FIRST_PAUSE
            while not self.ready.is_set():
                await self._resume()
                if not self.ready.is_set():
                    await asyncio.sleep(pause * (0.5 + random()))
                    pause = min(2 * pause, LONGEST_PAUSE)

    async def _resume(self) -> None:
        """Make the session anew, or say why not."""
        session = self._session
        try:
            await session.register()
            if session.is_open:
                await session.restore()
        except RegistrationError as error:
            if may_help(error):
                log.warning("%s; trying again", error.text)
            else:
                session.give_up(error)
        except BusError as error:
            log.warning("the session could not be restored: %s; trying again", error.text)
            if session.is_open:
                session.reconnect("the broker did not answer")
        else:
            if session.is_open:
                self.ready.set()

    async def _pulse(self) -> None:
        for number in count(1):
            due = self._loop.time() + self.beat
            await asyncio.sleep(self.beat)
            now = self._loop.time()
            # If this process was frozen or its loop was blocked, the broker could not be heard: no fault of its own.
            self.heard += max(0.0, now - due)
            if not self._session.is_open:
                continue
            if now - self.heard > SILENT_BEATS * self.beat:
                self._session.reconnect(f"the broker was silent for {SILENT_BEATS * self.beat:g} s")
            else:
                self._session.ping(number)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # A session that nobody keeps must not look as if it were kept.
            log.error("the session ends by a fault of its own", exc_info=error)
            self._session.give_up(ConnectionLost(f"{type(error).__name__}: {error}"))
