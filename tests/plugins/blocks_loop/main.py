"""Works until its loop is asked to wait: then it hears nothing more, for ever."""

import asyncio
import time

from plugin_sdk import Plugin

plugin = Plugin("blocks_loop")


def block() -> None:
    while True:
        time.sleep(60.0)


@plugin.on_start()
async def start() -> None:
    asyncio.get_running_loop().call_later(0.5, block)


plugin.run()
