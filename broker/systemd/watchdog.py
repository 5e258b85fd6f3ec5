"""The watchdog: systemd kills a broker that does not say in time that it makes progress (sd_watchdog_enabled(3))."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

log = logging.getLogger("broker.systemd")

_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """What is agreed with the service manager, in seconds.

    Args:
        timeout: without a sign of life for so long, the broker is killed.
        interval: between two signs of life.
        announce: whether the manager must be told the timeout, as its unit says another one or none.
    """

    timeout: float
    interval: float
    announce: bool

    @property
    def timeout_usec(self) -> int:
        """The timeout as the protocol has it."""
        return round(self.timeout * _MICRO)


def agree(environ: Mapping[str, str], enabled: bool, timeout: float, interval: float) -> Terms | None:
    """Bring the settings together with what the unit asks for; None when neither wants a watchdog.

    A unit with WatchdogSec= is obeyed even when the settings do not enable the watchdog, as the manager would kill a
    broker that keeps silent.

    Args:
        environ: with WATCHDOG_USEC, and WATCHDOG_PID when it is meant for one process only.
        enabled: the setting; the other two go before the unit then.
        timeout: seconds.
        interval: seconds; never more than half of the timeout, as sd_watchdog_enabled(3) recommends.
    """
    asked = _asked(environ)
    if enabled:
        return Terms(timeout, min(interval, timeout / 2), announce=asked != timeout)
    if asked is not None:
        return Terms(asked, min(interval, asked / 2), announce=False)
    return None


def _asked(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    if text.isascii() and text.isdigit() and int(text):
        return int(text) / _MICRO
    return None


class Watchdog:
    """Gives signs of life while the broker proves that it makes progress.

    Args:
        terms: how often.
        prove: returns once the core has done a round of work; it runs on the loop, which so proves itself, too.
        feed: gives one sign of life.
    """

    def __init__(self, terms: Terms, prove: Callable[[], Awaitable[object]], feed: Callable[[], None]) -> None:
        self._terms = terms
        self._prove = prove
        self._feed = feed

    async def run(self) -> None:
        """Until cancelled; a proof that is missing is logged, and costs the sign of life."""
        while True:
            if await self._proven():
                self._feed()
            await asyncio.sleep(self._terms.interval)

    async def _proven(self) -> bool:
        try:
            async with asyncio.timeout(self._terms.timeout):
                await self._prove()
        except Exception as error:  # noqa: BLE001 - whatever keeps the core from working, that is what it is for
            text = str(error) or type(error).__name__
            log.error("the core of the broker makes no progress, so the watchdog is not fed: %s", text)
            return False
        return True
