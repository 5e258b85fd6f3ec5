"""One request in hand."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Raw, Struct


class Job(Struct, eq=False):
    """One request in hand; `wanted` until somebody cancels it or its session is lost."""

    number: int
    payload: Raw
    stream: bool
    caller: dict[str, Any] | None = None
    credit: int = 0
    wanted: bool = True
    cancelled: bool = False
    task: asyncio.Task[Any] | None = None
    headers: dict[str, str] = {}
    waiter: asyncio.Future[None] | None = None

    def cancel(self) -> None:
        """Nobody waits for it any more: stop working on it."""
        self.wanted = False
        if self.task is not None and not self.cancelled:
            self.cancelled = self.task.cancel()

    def add_credit(self, amount: int) -> None:
        """The caller takes so many chunks more."""
        self.credit += amount
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def room(self) -> None:
        """Wait until the caller takes another chunk."""
        while self.credit <= 0:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        self.credit -= 1
