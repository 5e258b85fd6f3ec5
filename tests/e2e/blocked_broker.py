"""A real daemon whose event loop is blocked once the plugin `small` runs: what a defect of ours would do to it."""

import asyncio
import os
import sys
import time
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
        asyncio.get_running_loop().call_later(0, block)
        await daemon.serve()
        return await daemon.stop()


def block() -> None:
    print("the loop is blocked", flush=True)
    time.sleep(600)


set_up_logging("info", "text")
with Guard(None) as guard:
    sys.exit(asyncio.run(live(Path(sys.argv[1]), guard)))
