"""How many plugins may be on their way up at the same time: a semaphore whose number may change while it is held."""

import asyncio
from collections import deque


class Slots:
    """An asynchronous context manager; those that wait are served in order.

    Args:
        number: how many may hold one at the same time.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._held = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    def resize(self, number: int) -> None:
        """Changes the number; those that hold one beyond it keep it until they are done."""
        self._number = number
        self._hand_out()

    async def __aenter__(self) -> None:
        if self._held < self._number and not self._waiters:
            self._held += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                # It was handed one in the same moment, and has no use for it.
                self._give_back()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        self._held -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiters and self._held < self._number:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._held += 1
                waiter.set_result(None)
