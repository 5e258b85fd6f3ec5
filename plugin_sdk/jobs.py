"""One request in hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw


@dataclass(slots=True, eq=False)
class Job:
    """One request in hand; `wanted` until somebody cancels it or its session is lost."""

    number: int
    payload: Raw
    stream: bool
    caller: dict[str, Any] | None = None
    credit: int = 0
    wanted: bool = True
    cancelled: bool = False
    task: asyncio.Task[Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    _waiter: asyncio.Future[None] | None = None

    def cancel(self) -> None:
        """Nobody waits for it any more: stop working on it."""
        self.wanted = False
        if self.task is not None and not self.cancelled:
            self.cancelled = self.task.cancel()

    def add_credit(self, amount: int) -> None:
        """The caller takes so many chunks more."""
        self.credit += amount
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def room(self) -> None:
        """Wait until the caller takes another chunk."""
        while self.credit <= 0:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self.credit -= 1
