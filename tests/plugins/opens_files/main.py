"""Wants 10,000 open files before it says that it has started."""

import os

from plugin_sdk import Plugin

plugin = Plugin("opens_files")
kept: list[int] = []


@plugin.on_start()
async def start() -> None:
    kept.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(10_000))


plugin.run()
