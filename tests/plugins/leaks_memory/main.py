"""Works, but keeps 128 MiB that it has written to once it has started, and gives them back when asked to."""

from plugin_sdk import Plugin

plugin = Plugin("leaks_memory")
kept: list[bytes] = []


@plugin.on_start()
async def start() -> None:
    kept.append(b"x" * (128 << 20))


@plugin.service("free")
async def free() -> None:
    kept.clear()


plugin.run()
