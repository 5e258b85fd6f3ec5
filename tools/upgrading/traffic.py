"""A process that calls and publishes at a steady rate, and says at the end what became of each."""

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

from plugin_sdk import Bus, connect
from plugin_sdk.wire.errors import BusError
from tools.upgrading.versions import SERVICE, SUBJECT

# Several calls a tick: a timer for each would cost more than the call.
TICK_SECS = 0.005


class Traffic:
    """Open loop: the next call does not wait for the one before, or a slow answer would hide those behind it."""

    def __init__(self, bus: Bus, rate: float) -> None:
        self._bus = bus
        self._rate = rate
        self._tasks: set[asyncio.Task[None]] = set()
        self.begun = 0
        self.versions: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.longest = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Calls and publishes until it is told to stop, and waits for the last answers."""
        began = time.perf_counter()
        while not stop.is_set():
            due = round((time.perf_counter() - began) * self._rate)
            for number in range(self.begun, due):
                task = asyncio.create_task(self._call(number))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                await self._bus.publish(SUBJECT, number)
            self.begun = due
            await asyncio.sleep(TICK_SECS)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _call(self, number: int) -> None:
        began = time.perf_counter()
        try:
            item, version = await self._bus.call(SERVICE, number, timeout=10)
        except BusError as error:
            self.failures[error.code] += 1
            return
        self.longest = max(self.longest, time.perf_counter() - began)
        self.versions[version] += 1
        if item != number:
            self.failures["the answer of another call"] += 1


async def main(home: str, rate: float) -> None:
    """Runs until standard input is closed, and prints what came of it as JSON."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    async with connect(home=home, name="traffic") as bus:
        await bus.call(SERVICE, 0, wait_ready=10)
        print("ready", flush=True)
        traffic = Traffic(bus, rate)
        await traffic.run(stop)
    report: dict[str, Any] = {
        "begun": traffic.begun,
        "versions": traffic.versions,
        "failures": traffic.failures,
        "longest_secs": traffic.longest,
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
