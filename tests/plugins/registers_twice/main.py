"""Works, and starts a copy of itself that registers with the same name and the same token."""

import os
import subprocess
import sys

from plugin_sdk import Plugin

plugin = Plugin("registers_twice")


@plugin.on_start()
def start() -> None:
    # Not before it is registered itself, or the copy might be the first.
    if "COPY" not in os.environ:
        subprocess.Popen([sys.executable, __file__], env={**os.environ, "COPY": "yes"})


@plugin.service("whoami")
async def whoami() -> int:
    return os.getpid()


plugin.run()
