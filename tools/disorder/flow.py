"""One process around a subscriber that is frozen: `python -m tools.disorder.flow ROLE FOLDER`.

A publisher at full speed, the subscriber, and two others, of which one asks the other one question after the other.
What they have to say they leave in files of the folder; they stop when it has a file `quiet`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from time import perf_counter

from plugin_sdk import Event, Plugin, connect
from tools.disorder.ledger import now

SUBJECT, SERVICE = "flow.event", "echo.back"
LOOK_SECS = 0.05


async def publish(folder: Path) -> None:
    """Publish numbers from 1 upwards as fast as the bus takes them; leaves the last one in `published`."""
    number = 0
    async with connect(name="publisher") as bus:
        while not (folder / "flow").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(LOOK_SECS)
        while not (folder / "quiet").exists():
            for _ in range(1000):
                number += 1
                await bus.publish(SUBJECT, number)
    (folder / "published").write_text(str(number))


async def subscribe(folder: Path) -> None:
    """Expect these numbers; leaves in `received` how many came, and the first one that was out of order."""
    came, wrong = 0, 0

    async def take(event: Event) -> None:
        nonlocal came, wrong
        came += 1
        if event.data != came and not wrong:
            wrong = came

    async with connect(name="subscriber") as bus, bus.subscribe(SUBJECT, take):
        while True:
            leave(folder / "received", f"{came} {wrong}")
            await asyncio.sleep(LOOK_SECS)


async def ask(folder: Path) -> None:
    """Ask until told to stop; leaves when each question was asked and how many microseconds its answer took."""
    async with connect(name="caller") as bus:
        with (folder / "asked").open("w") as file:
            while not (folder / "quiet").exists():
                for _ in range(50):
                    began = perf_counter()
                    await bus.call(SERVICE, "?", timeout=30, wait_ready=10)
                    print(now(), round((perf_counter() - began) * 1e6), file=file)


def leave(path: Path, text: str) -> None:
    """Write a file that is always whole."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def serve() -> None:
    """Answer."""
    plugin = Plugin("echo")

    @plugin.service("back")
    async def back(text: str) -> str:
        return text

    plugin.run()


def main(role: str, folder: Path) -> None:
    """Be one of them."""
    if role == "server":
        serve()
    else:
        asyncio.run({"publisher": publish, "subscriber": subscribe, "caller": ask}[role](folder))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
