"""Works, and ends with status 4 in the middle of its cleanup."""

import os

from plugin_sdk import Plugin

plugin = Plugin("crashes_in_cleanup")


@plugin.on_cleanup()
async def cleanup() -> None:
    print("the key to the archive is lost", flush=True)
    os._exit(4)


plugin.run()
