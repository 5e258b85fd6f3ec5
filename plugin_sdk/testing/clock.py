"""The clock of an event loop that can be stopped and moved forward."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class LoopClock:
    """Moves the time of an event loop, where the loop lets itself be moved; it never goes back.

    Args:
        loop: any; one that is not written in Python, such as uvloop's, keeps its own time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._real: Callable[[], float] = loop.time
        self._ahead = 0.0
        self._standing: float | None = None
        with suppress(AttributeError):
            loop.time = self._time  # type: ignore[method-assign]

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Let time pass by move() only for as long as the block lasts."""
        self._standing = self._time()
        try:
            yield
        finally:
            self._ahead, self._standing = self._standing - self._real(), None

    def move(self, seconds: float) -> None:
        """So many seconds are over."""
        if self._standing is None:
            self._ahead += seconds
        else:
            self._standing += seconds

    def until_timer(self) -> float | None:
        """Seconds until the loop's next timer is due, if there is one and the loop lets us look."""
        timers: list[asyncio.TimerHandle] = getattr(self._loop, "_scheduled", [])
        times = [timer.when() for timer in timers if not timer.cancelled()]
        return max(min(times) - self._time(), 0.0) if times else None

    def _time(self) -> float:
        return self._real() + self._ahead if self._standing is None else self._standing
