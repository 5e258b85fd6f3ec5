"""The plugin that is upgraded: good versions of it, and bad ones of every kind."""

from pathlib import Path

NAME = "shop"
SERVICE = "shop.price"
SUBJECT = "order.placed"
MIN_UPTIME_SECS = 0.3

_MANIFEST = """\
name: shop
version: "{version}"
timeouts: {{min_uptime: {min_uptime}, start: 2, register: 5}}
"""

_PROGRAM = """\
import asyncio
import os

from plugin_sdk import Event, Plugin

plugin = Plugin("shop", version="{version}")
ledger = open(plugin.data_dir / "handled", "a", buffering=1)


@plugin.service("price")
async def price(item: int) -> list:
    await asyncio.sleep(0.002)
    return [item, "{version}"]


@plugin.subscribe("order.placed")
async def placed(event: Event) -> None:
    ledger.write(f"{{event.data}}\\n")


{trouble}
plugin.run()
"""

# How a version may be bad; each is found out in another step of an upgrade.
TROUBLES = {
    "does not even begin": "raise SystemExit('no such module')\n",
    "refuses its configuration": (
        "@plugin.on_initialize()\nasync def initialize(config):\n    raise ValueError('colour is missing')\n"
    ),
    "cannot start": "@plugin.on_start()\nasync def start():\n    raise OSError('no port is free')\n",
    "crashes once it has started": (
        "@plugin.on_start()\nasync def start():\n    asyncio.get_running_loop().call_later(0.1, os._exit, 3)\n"
    ),
    "is not well": "@plugin.on_health()\nasync def health():\n    return {'ok': False, 'reason': 'no database'}\n",
}


def write(folder: Path, version: str, trouble: str = "") -> Path:
    """Writes a version into a folder of its own.

    Args:
        trouble: one of TROUBLES; empty for a good version.
    """
    folder.mkdir(parents=True)
    folder.joinpath("plugin.yaml").write_text(_MANIFEST.format(version=version, min_uptime=MIN_UPTIME_SECS))
    folder.joinpath("main.py").write_text(_PROGRAM.format(version=version, trouble=TROUBLES.get(trouble, "")))
    return folder
