"""The decision whether a trace is recorded, taken where it begins and kept wherever it leads.

Most traces are not recorded. To find that out by the OpenTelemetry API costs several times what an event costs, so with
the usual samplers it is decided here, on a trace id as they do, and what is not recorded carries a `traceparent` that
says so from hop to hop.
"""

from __future__ import annotations

import os
from contextvars import ContextVar


class Unrecorded:
    """Work for a trace that is not recorded; `parent` is its traceparent, None once the work is done.

    Tasks that were begun meanwhile and go on do so on their own account.
    """

    __slots__ = ("parent",)

    def __init__(self, parent: str) -> None:
        self.parent: str | None = parent


# What this task works for, if that is not recorded.
unrecorded: ContextVar[Unrecorded | None] = ContextVar("plugmesh_unrecorded", default=None)
# Set while a span is begun of which is known already that it must be recorded.
chosen: ContextVar[bool] = ContextVar("plugmesh_chosen", default=False)

_DIGITS = 48  # of a trace id and a span id
_STOCK = 64


def unrecorded_parent() -> str | None:
    """The traceparent of the trace that this task works for, if that is not recorded."""
    mark = unrecorded.get()
    return None if mark is None else mark.parent


class Heads:
    """Begins traces.

    Args:
        ratio: how many of them are recorded, 0 to 1, judged by the lower half of the trace id as OpenTelemetry's
            TraceIdRatioBased does.
    """

    def __init__(self, ratio: float) -> None:
        self._bound = f"{min(round(ratio * 2**64), 2**64 - 1):016x}"
        self._always = ratio >= 1
        self._stock: list[str | None] = []

    def begin(self) -> str | None:
        """None for a trace that is to be recorded, else the traceparent of one that is not."""
        try:
            return self._stock.pop()
        except IndexError:
            # Many at a time: a call for random bytes costs more than what is made of them.
            made = self._make(os.urandom(_STOCK * _DIGITS // 2).hex())
            self._stock += made[1:]
            return made[0]

    def _make(self, digits: str) -> list[str | None]:
        if self._always:
            return [None] * _STOCK
        each = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
        # Digits of equal number compare as the numbers do.
        return [None if ids[16:32] < self._bound else f"00-{ids[:32]}-{ids[32:]}-00" for ids in each]
