"""The clock of an event loop that can be moved forward."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


class LoopClock:
    """Moves the time of an event loop, where the loop lets itself be moved; it never goes back.

    Args:
        loop: any; one that is not written in Python, such as uvloop's, keeps its own time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._moved = 0.0
        self._real: Callable[[], float] = loop.time
        with suppress(AttributeError):
            loop.time = self._time  # type: ignore[method-assign]

    def move(self, seconds: float) -> None:
        """So many seconds are over."""
        self._moved += seconds

    def _time(self) -> float:
        return self._real() + self._moved
