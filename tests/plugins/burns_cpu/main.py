"""Works, and keeps a core busy beside it."""

import threading

from plugin_sdk import Plugin

plugin = Plugin("burns_cpu")


def burn() -> None:
    while True:
        pow(3, 1 << 18)


@plugin.on_start()
async def start() -> None:
    threading.Thread(target=burn, daemon=True).start()


plugin.run()
