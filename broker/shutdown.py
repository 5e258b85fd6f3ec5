"""Ordered shutdown: phases one after the other, each with its share of one deadline, and a guard that outlives them.

The guard is a thread, because the most likely reason why a shutdown hangs is an event loop that hangs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

log = logging.getLogger("broker.shutdown")

EX_UNFINISHED = 1  # the exit status when the guard had to end the process


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of the shutdown.

    Args:
        name: what it does, for the log.
        run: does it, given the seconds that it may take; returns what it had to leave undone, or an empty text.
        share: part of the time still left that it may use.
    """

    name: str
    run: Callable[[float], Awaitable[str]]
    share: float


async def run_phases(phases: Sequence[Phase], total: float, on_phase: Callable[[str], None]) -> list[str]:
    """Run every phase in order, whatever became of the one before.

    Args:
        phases: in order.
        total: seconds for all of them.
        on_phase: told the name of each before it begins.

    Returns:
        What was left undone, a text each; empty for a clean shutdown.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + total
    undone: list[str] = []
    for phase in phases:
        on_phase(phase.name)
        started = loop.time()
        limit = max(0.1, (deadline - started) * phase.share)
        left = await _run_phase(phase, limit)
        if left:
            undone.append(f"{phase.name}: {left}")
        log.info("%s took %.2f s%s", phase.name, loop.time() - started, f" ({left})" if left else "")
    return undone


async def _run_phase(phase: Phase, limit: float) -> str:
    try:
        # The phase keeps its own limit; this one only catches a phase that does not.
        async with asyncio.timeout(limit + 0.5):
            return await phase.run(limit)
    except TimeoutError:
        return f"not finished within {limit:.1f} s"
    except Exception as error:
        log.exception("%s failed", phase.name)
        return f"failed with {type(error).__name__}: {error}"


class Guard:
    """Ends the process when the shutdown does not, even when the event loop is stuck.

    Args:
        timeout: seconds from arm() until then.
        kill: ends the plugins' processes; it must not need the event loop.
        leave: ends the process with an exit status.
    """

    def __init__(self, timeout: float, kill: Callable[[], None], leave: Callable[[int], object] = os._exit) -> None:
        self._timeout = timeout
        self._kill = kill
        self._leave = leave
        self._done = threading.Event()
        self._phase = "the shutdown had not begun"
        self._armed = time.monotonic()

    def arm(self, *, watch: bool = True) -> None:
        """Begin to count; without `watch` only force() ends the process."""
        self._armed = time.monotonic()
        if watch:
            threading.Thread(target=self._watch, name="broker-shutdown-guard", daemon=True).start()

    def entered(self, phase: str) -> None:
        """Remember where the shutdown is."""
        self._phase = phase

    def disarm(self) -> None:
        """The shutdown came to its end."""
        self._done.set()

    def force(self, reason: str) -> None:
        """End it now; may be called from a signal handler on the loop."""
        spent = time.monotonic() - self._armed
        log.error("forced to end after %.1f s, %s; unfinished: %s", spent, reason, self._phase)
        self._kill()
        self._leave(EX_UNFINISHED)

    def _watch(self) -> None:
        if not self._done.wait(self._timeout):
            self.force(f"because the time of {self._timeout:g} s was over")
