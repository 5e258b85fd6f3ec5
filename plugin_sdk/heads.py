"""The decision whether a trace is recorded, taken where it begins and kept wherever it leads.

Most traces are not recorded. To find that out by the OpenTelemetry API costs several times what an event costs, so with
the usual samplers it is decided here. Under a broker that records traces itself, what is not recorded carries nothing:
whoever hears it knows that it was decided already. Under any other it carries a `traceparent` that says so.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from itertools import repeat
from time import monotonic
from typing import Any

# So many traces a second a process begins at most when it is to choose, unless it is told otherwise: a flood of events
# must not become one of spans, which cost twenty times as much, and of which some would be dropped in the end, leaving
# trees with holes.
RATE = 50.0

_SPACE = 2**64


class Hand:
    """A worker, and what is known of the trace of what it works on.

    Nothing is noted for an item that says nothing of a trace, which nearly all of them do.

    Args:
        running: when each worker began with what it has in hand, by task. No two items of one have the same time.
    """

    __slots__ = ("_noted", "_parent", "_running", "task")

    def __init__(self, running: Mapping[object, float]) -> None:
        self.task: asyncio.Task[Any] | None = None
        self._running = running
        # Of which item the parent is.
        self._noted: float | None = None
        self._parent: str | None = None

    @property
    def parent(self) -> str | None:
        """The traceparent of the item in hand, None when it has none."""
        return self._parent if self._noted == self._running.get(self.task) else None

    def note(self, parent: str) -> None:
        """Say what the traceparent of the item in hand is."""
        self._noted, self._parent = self._running.get(self.task), parent

    def is_mine(self) -> bool:
        """Whether what this task does is part of the item in hand."""
        began = self._running.get(self.task)
        if began is None:
            return False
        if _current_task() in (self.task, None):
            return True
        # A task that was begun meanwhile goes on on its own account when the work is over.
        first = _taken_part.get()
        if first is None:
            _taken_part.set(began)
        return first is None or first == began


_taken_part: ContextVar[float | None] = ContextVar("plugmesh_taken_part", default=None)
# Set while a span is begun of which is known already that it must be recorded.
chosen: ContextVar[bool] = ContextVar("plugmesh_chosen", default=False)


def _current_task() -> object:
    """None in a thread, which works for nobody else than the worker that waits for it."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class Settled(dict[str, str]):
    """Headers of which it is settled what they say of a trace."""

    __slots__ = ()


class Heads:
    """Begins traces.

    Args:
        ratio: how many of them are recorded, 0 to 1.
        obedient: what a sender says that it does not record is not recorded here either.
        rate: how many a second are recorded at most, if the ratio is below 1; `withheld` counts those beyond.
    """

    def __init__(self, ratio: float, *, obedient: bool = True, rate: float = RATE) -> None:
        self.obedient = obedient
        self.withheld = 0
        self.ratio = ratio
        self._rate = rate if ratio < 1 else math.inf
        # As OpenTelemetry's TraceIdRatioBased judges the lower half of a trace id.
        self._bound = min(round(ratio * _SPACE), _SPACE - 1)
        self._tokens = self._rate
        self._filled = monotonic()
        self.left = self._gap()

    def begin(self) -> bool:
        """Whether the next trace is to be recorded."""
        if self.left >= 1.0:
            self.left -= 1.0
            return False
        self.left = self._gap()
        return self.affords()

    def gate(self, look: Callable[[object], object]) -> Iterator[object]:
        """For each trace that is not to be recorded, what `look` gives for None; it ends before one that is drawn."""
        # Both in one step, which no Python code is part of.
        gap = self._gap()
        return map(look, repeat(None) if gap >= sys.maxsize else repeat(None, int(gap)))

    def among(self, number: int) -> list[int]:
        """Which of the next so many traces are to be recorded, by their position."""
        found: list[int] = []
        while self.left < number:
            at = self.left
            self.left = at + 1 + self._gap()
            if self.affords():
                found.append(int(at))
        self.left -= number
        return found

    def trace_id(self) -> int:
        """For a trace that is recorded: one for which every TraceIdRatioBased of this ratio decides the same."""
        # At a ratio of 0 only what somebody else has recorded is, and may need a trace of its own.
        bound = self._bound or _SPACE
        return random.getrandbits(64) << 64 | min(int(random.random() * bound), bound - 1)

    def unrecorded_parent(self) -> str:
        """A traceparent for a trace that is not recorded."""
        low = min(self._bound + int(random.random() * (_SPACE - self._bound)), _SPACE - 1)
        return f"00-{random.getrandbits(64):016x}{low:016x}-{random.getrandbits(63) + 1:016x}-00"

    def _gap(self) -> float:
        """How many are not recorded before the next one that is: a draw for each would cost more than an event may."""
        if self.ratio >= 1:
            return 0.0
        if not self._bound:
            # Of so small a ratio OpenTelemetry's sampler records none either.
            return math.inf
        return float(math.floor(math.log(1.0 - random.random()) / math.log1p(-self.ratio)))

    def affords(self) -> bool:
        """Whether a trace that was drawn may be recorded, by the rate; counts it in `withheld` when it may not."""
        if self._rate == math.inf:
            return True
        now = monotonic()
        self._tokens = min(self._tokens + (now - self._filled) * self._rate, self._rate)
        self._filled = now
        if self._tokens < 1:
            self.withheld += 1
            return False
        self._tokens -= 1
        return True
