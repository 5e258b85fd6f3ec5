"""Works, and has 40 children that do nothing, every second one double-forked into a session of its own."""

import os
import signal

from plugin_sdk import Plugin

for number in range(40):
    if os.fork() == 0:
        if number % 2:
            os.setsid()
            if os.fork():
                os._exit(0)
        while True:
            signal.pause()

plugin = Plugin("spawns_processes")
plugin.run()
