"""The phases of a shutdown as data, and the one that runs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from broker import tracepoints
from broker.shutdown.windows import INNER, Window
from plugin_sdk.wire import conventions as c

log = logging.getLogger("broker.shutdown")

PROGRESS_SECS = 2.0  # a phase that takes longer says so often what it waits for


def _nothing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of the shutdown.

    Args:
        name: what it does, for the log.
        run: does it, given the seconds that it may take; returns what it had to leave undone, or an empty text.
        window: its part of the time for everything.
        waits_for: says what it is waiting for; called from any thread.
    """

    name: str
    run: Callable[[float], Awaitable[str]]
    window: Window
    waits_for: Callable[[], str] = _nothing


class Shutdown:
    """Runs phases in order, whatever became of the one before.

    Args:
        phases: in order.
        total: seconds for all of them.
        progress_secs: seconds between two lines about a phase that is still running.
    """

    def __init__(self, phases: Sequence[Phase], total: float, progress_secs: float = PROGRESS_SECS) -> None:
        self._phases = phases
        self._total = total
        self._progress_secs = progress_secs
        self._current: Phase | None = None

    def unfinished(self) -> str:
        """The phase that is running and what it waits for; may be called from any thread."""
        return _told(self._current) if self._current else ""

    async def run(self) -> list[str]:
        """Run them all; returns what was left undone, a text each, empty for a clean shutdown."""
        with tracepoints.span("broker.stop"):
            return await self._run()

    async def _run(self) -> list[str]:
        began = asyncio.get_running_loop().time()
        undone = []
        for number, phase in enumerate(self._phases, 1):
            self._current = phase
            with tracepoints.span(phase.name, {c.PHASE: number}):
                text = await self._run_one(phase, f"{phase.name} ({number} of {len(self._phases)})", began)
            if text:
                undone.append(f"{phase.name}: {text}")
        self._current = None
        return undone

    async def _run_one(self, phase: Phase, title: str, began: float) -> str:
        loop = asyncio.get_running_loop()
        started = loop.time()
        limit = phase.window.secs(self._total, started - began)
        log.info("%s, within %.1f s", title, limit)
        progress = asyncio.create_task(self._tell_progress(phase, started))
        try:
            left = await _within(phase, limit)
        finally:
            progress.cancel()
        log.info("%s took %.2f s%s", title, loop.time() - started, f"; left undone: {left}" if left else "")
        return left

    async def _tell_progress(self, phase: Phase, started: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._progress_secs)
            log.info("%s since %.1f s", _told(phase), loop.time() - started)


async def _within(phase: Phase, limit: float) -> str:
    """Run a phase; one that keeps neither its limit nor to a cancellation is left behind."""
    task = asyncio.ensure_future(phase.run(limit * INNER))
    await asyncio.wait({task}, timeout=limit)
    if not task.done():
        waits_for = _waits_for(phase)
        task.cancel()
        return f"not finished within {limit:.1f} s" + (f", still waiting for {waits_for}" if waits_for else "")
    try:
        return task.result()
    except Exception as error:
        log.exception("%s failed", phase.name)
        return f"failed with {type(error).__name__}: {error}"


def _told(phase: Phase) -> str:
    waits_for = _waits_for(phase)
    return f"{phase.name}, waiting for {waits_for}" if waits_for else phase.name


def _waits_for(phase: Phase) -> str:
    try:
        return phase.waits_for()
    except Exception as error:  # noqa: BLE001 - what is only told must not keep the broker from ending
        return f"something that cannot be told ({error!r})"
