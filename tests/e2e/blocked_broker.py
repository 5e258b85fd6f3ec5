"""A real daemon that hangs once the plugin `small` runs: its loop, or with `core` its core only, as by a defect."""

import asyncio
import os
import sys
import time
from functools import partial
from pathlib import Path

from broker.config import load
from broker.daemon import Daemon
from broker.shutdown.guard import Guard
from broker.telemetry.logs import set_up_logging
from plugin_sdk import connect


async def live(home: Path, guard: Guard) -> int:
    daemon = Daemon(load(home, None, os.environ), guard)
    await daemon.start()
    async with connect(home=home, name="test") as bus:
        await bus.call("small.ready", {}, wait_ready=15.0, timeout=20.0)
        hang = partial(stall, daemon) if "core" in sys.argv else block
        asyncio.get_running_loop().call_later(0, hang)
        await daemon.serve()
        return await daemon.stop()


def block() -> None:
    print("the loop is blocked", flush=True)
    time.sleep(600)


def stall(daemon: Daemon) -> None:
    """The loop goes on, but nothing is routed any more."""
    daemon._edge._turn = lambda: None  # type: ignore[method-assign]
    print("the core is stalled", flush=True)


set_up_logging("info", "text")
with Guard(None) as guard:
    sys.exit(asyncio.run(live(Path(sys.argv[1]), guard)))
