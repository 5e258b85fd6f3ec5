"""Where the rooms of the broker say what they do, for traces: nothing happens until somebody listens."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Listener(Protocol):
    """Makes spans of what is done."""

    def span(self, name: str, attributes: Mapping[str, str | int]) -> AbstractContextManager[object]:
        """Surrounds something that is done."""

    def environment(self) -> dict[str, str]:
        """What a child process must have in its environment to go on with the present span."""


_NOTHING = nullcontext()
_listener: Listener | None = None


def listen(listener: Listener | None) -> None:
    """Have a listener told, or nobody."""
    global _listener
    _listener = listener


def span(name: str, attributes: Mapping[str, str | int] | None = None) -> AbstractContextManager[object]:
    """Surrounds something that takes time and that an operator may want to see; raises nothing of its own."""
    return _NOTHING if _listener is None else _listener.span(name, attributes or {})


def environment() -> dict[str, str] | None:
    """Variables for a child process that is part of the present span; None when nobody listens."""
    return None if _listener is None else _listener.environment()
