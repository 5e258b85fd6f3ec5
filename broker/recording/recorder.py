"""Records what passes: a client of the bus with one subscription, whose handler writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf

from broker.recording.cover import Choice, cover
from broker.recording.errors import RecordingError
from broker.recording.layout import EventEncoder, note
from broker.recording.writer import Writer
from plugin_sdk.client import Bus
from plugin_sdk.events import Event
from plugin_sdk.options import SubscribeOptions
from plugin_sdk.wire.errors import BusError

BATCH = 4096  # events written at once, when that many have arrived; what arrives alone is written alone
LOOK_SECS = 0.25
CATCH_UP_SECS = 1.0  # without getting on


@dataclass(slots=True)
class Progress:
    """How far a recording has got."""

    events: int
    bytes: int
    secs: float


class Recorder:
    """Writes what matches some patterns until it is told to stop, or cannot go on.

    Args:
        bus: an open session.
        writer: takes the events; closed at the end.
        patterns: what to record.
        overflow: what the broker does when the disk is slower than the bus: `block` slows the publishers, the others
            lose events, which are counted.
    """

    def __init__(self, bus: Bus, writer: Writer, patterns: tuple[str, ...], overflow: str = "block") -> None:
        self._bus = bus
        self._writer = writer
        self._wanted = None if len(set(patterns)) == 1 else Choice(patterns)
        self._pattern = cover(patterns)
        self._overflow = overflow
        self._encoder = EventEncoder()
        # Times are of the wall clock, but must not jump with it within one recording.
        self._epoch_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        self._thread = ThreadPoolExecutor(1, "recording")
        self._ended = asyncio.Event()
        self.why = ""
        self.error: Exception | None = None
        self.dropped = 0
        self.interruptions = 0

    def stop(self, why: str) -> None:
        """Begin to end; only the first reason counts."""
        self.why = self.why or why
        self._ended.set()

    async def run(
        self, duration: float | None, ready: Callable[[], None], watch: Callable[[Progress], None]
    ) -> Progress:
        """Record until stop() is called; what ended it early is in `error`.

        Args:
            duration: seconds after which it stops by itself, or None.
            ready: called once the subscription is in force.
            watch: told from time to time how far it has got.
        """
        began = time.monotonic()
        how = SubscribeOptions(batch=BATCH, batch_wait=0.0, overflow=self._overflow)
        subscription = self._bus.subscribe(self._pattern, self._on_events, options=how)
        try:
            await subscription
            ready()
            await self._watch(began, duration, watch)
            if self._bus.is_open:
                await self._settle(self._catch_up())
            await self._settle(subscription.unsubscribe())
        except BusError as error:
            self._fail(error)
        finally:
            await self._close()
        return self._progress(began)

    async def _watch(self, began: float, duration: float | None, watch: Callable[[Progress], None]) -> None:
        session = self._bus.session
        self._bus.ended.add_done_callback(self._on_bus_ended)
        until = None if duration is None else began + duration
        while not self._ended.is_set():
            left = LOOK_SECS if until is None else min(LOOK_SECS, until - time.monotonic())
            if left <= 0:
                self.stop("the time is over")
                break
            try:
                async with asyncio.timeout(left):
                    await self._ended.wait()
            except TimeoutError:
                watch(self._progress(began))
            if self._bus.is_open and self._bus.session != session:
                session = self._bus.session
                await self._note_interruption()

    async def _on_events(self, events: list[Event]) -> None:
        if self._wanted is not None:
            events = [event for event in events if self._wanted(event.subject)]
        if not events or self.error is not None:
            return
        data = self._encoder.encode(events, self._now_us())
        # While the disk works, the next batch gathers; credit goes back only once this one is written.
        await self._in_thread(self._writer.write, data, len(events))
        if self._writer.full:
            self.stop("the size is reached")

    async def _note_interruption(self) -> None:
        self.interruptions += 1
        text = "the connection to the broker was lost: what was published until now is missing"
        await self._in_thread(self._writer.remark, note(text, self._now_us()))

    async def _catch_up(self) -> None:
        """Take what waits at the broker when the recording ends; learn what the broker has dropped."""
        least, until = inf, time.monotonic() + CATCH_UP_SECS
        while True:
            rows = await self._bus.call("$broker.sessions", {})
            own = next((row for row in rows if row["session"] == self._bus.session), None)
            if own is None:
                return
            self.dropped = own["dropped"]
            if own["waiting"] < least:
                # On a busy machine it takes longer; under a flood it comes to no end, but does not become less either.
                least, until = own["waiting"], time.monotonic() + CATCH_UP_SECS
            if not least or self.error is not None or time.monotonic() > until:
                return
            await asyncio.sleep(CATCH_UP_SECS / 50)

    async def _close(self) -> None:
        facts = {"dropped": self.dropped, "interruptions": self.interruptions}
        await self._in_thread(self._writer.close, self.why or str(self.error), facts)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[..., None], *args: object) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        except RecordingError as error:
            self._fail(error)

    async def _settle(self, work: Awaitable[None]) -> None:
        """Do what belongs to a proper end; a broker that is on its way out does not answer any more."""
        try:
            await work
        except BusError as error:
            if self.error is None and error.code not in ("lost", "timeout", "shutting_down", "unavailable"):
                self._fail(error)

    def _on_bus_ended(self, ended: asyncio.Future[BusError | None]) -> None:
        error = ended.result()
        if error is not None:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error
        self.stop(str(error))

    def _now_us(self) -> int:
        return self._epoch_us + time.monotonic_ns() // 1000

    def _progress(self, began: float) -> Progress:
        return Progress(self._writer.events, self._writer.bytes, time.monotonic() - began)
