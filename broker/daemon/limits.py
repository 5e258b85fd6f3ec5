"""Plugins beside their limits: measured on a thread while one that has any runs, told in log and audit log (OPS-8)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

from broker.supervisor.excess import Use
from broker.supervisor.keeping import REPORT
from broker.supervisor.limiter import Exceeded, Limiter
from broker.telemetry.usage import Measured, Sampler

LOOK_SECS = 2.0
QUIET_SECS = 60.0  # one that hovers about its limit is counted each time, and told no more often than this

log = logging.getLogger("broker.limits")


class Record(Protocol):
    """Writes an entry of the audit log."""

    def __call__(self, actor: str, action: str, target: str, result: str, detail: str) -> None: ...


class LimitWatch:
    """Looks every so often while there is something to look at.

    Args:
        limiter: compares, and does what a plugin's policy says.
        record: writes an entry of the audit log.
        own: runs work that ends with the broker at the latest.
        look_secs: seconds between two looks.
    """

    def __init__(
        self,
        limiter: Limiter,
        record: Record,
        own: Callable[[Coroutine[Any, Any, None]], object],
        look_secs: float = LOOK_SECS,
    ) -> None:
        self._limiter = limiter
        self._record = record
        self._own = own
        self._look_secs = look_secs
        # One of its own: a sampler remembers CPU time of those alone that it was asked for last.
        self._sampler = Sampler()
        self._looking = False
        self._told: dict[tuple[str, str], float] = {}

    def begin(self) -> None:
        """Look from now on, if a plugin that has limits is there; called whenever one may have come."""
        if not self._looking and self._limiter.watches():
            self._looking = True
            self._own(self._look())

    async def _look(self) -> None:
        try:
            while self._limiter.watches():
                pids = self._limiter.pids()
                uses = _uses(await asyncio.to_thread(self._sampler.read, pids), pids) if pids else {}
                now = time.monotonic()
                for each in self._limiter.judge(uses, now):
                    self._tell(each, now)
                await asyncio.sleep(self._look_secs)
        except Exception:
            # A defect of ours must not look like plugins that keep to their limits.
            log.exception("the limits of plugins are not watched any more until the next one starts")
        finally:
            self._looking = False

    def _tell(self, each: Exceeded, now: float) -> None:
        name, excess = each.plugin_id, each.excess
        told = self._told.get((name, excess.limit), float("-inf"))
        if excess.over == REPORT and now - told < QUIET_SECS:
            return
        self._told[name, excess.limit] = now
        log.warning("plugin %s %s (over: %s)", name, excess.text, excess.over)
        self._record("broker", "over limit", name, excess.over, f"{excess.limit}: it {excess.text}")


def _uses(measured: Measured, pids: Collection[int]) -> dict[int, Use]:
    return {
        pid: Use(used.memory_bytes, used.cpu_secs, used.threads) for pid in pids if (used := measured.plugins.get(pid))
    }
