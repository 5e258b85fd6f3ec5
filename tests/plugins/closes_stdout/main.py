"""Works without standard output and error, and goes on printing into what is closed."""

import os
import sys

from plugin_sdk import Plugin

plugin = Plugin("closes_stdout")


@plugin.service("speak")
async def speak() -> str:
    try:
        print("nobody hears this", flush=True)
    except OSError as error:
        return error.strerror or ""
    return "heard"


os.close(sys.stdout.fileno())
os.close(sys.stderr.fileno())
plugin.run()
