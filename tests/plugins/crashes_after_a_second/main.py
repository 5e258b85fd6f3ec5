"""Works for a second, then ends without a word."""

import asyncio
import os

from plugin_sdk import Plugin

plugin = Plugin("crashes_after_a_second")


@plugin.on_start()
async def start() -> None:
    asyncio.get_running_loop().call_later(1.0, os._exit, 3)


plugin.run()
