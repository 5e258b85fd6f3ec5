"""Orders to plugins at random: what an operator types and what goes wrong by itself, several at the same time."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from plugin_sdk import Bus, BusError
from tools.disorder.stage import signal_process
from tools.upgrading import versions

# A chain, a fan and one that stands alone: orders to some reach others.
NEEDS: dict[str, tuple[str, ...]] = {
    "base": (),
    "store": ("base",),
    "index": ("store",),
    "left": ("base",),
    "right": ("base",),
    "alone": (),
}
AT_ONCE = 3
ORDER_SECS = 60.0
# Answers that an order may have while others are under way.
EXPECTED = frozenset({"failed", "busy", "cancelled", "disabled", "unavailable"})

_PROGRAM = 'from plugin_sdk import Plugin\n\nplugin = Plugin("{name}")\nplugin.run()\n'


def write_plugin(folder: Path, name: str, version: str) -> Path:
    """Write a plugin that does nothing but live."""
    folder.mkdir(parents=True, exist_ok=True)
    requires = ", ".join(NEEDS[name])
    manifest = f'name: {name}\nversion: "{version}"\nrequires: [{requires}]\ntimeouts: {{min_uptime: 0.3}}\n'
    (folder / "plugin.yaml").write_text(manifest)
    (folder / "main.py").write_text(_PROGRAM.format(name=name))
    return folder


class Orders:
    """Gives orders until the time is over.

    Args:
        bus: of the operator.
        home: of the broker.
        place: for the folders of new versions.
        seed: decides what is ordered, and of whom.
    """

    def __init__(self, bus: Bus, home: Path, place: Path, seed: int) -> None:
        self._bus = bus
        self._home = home
        self._place = place
        self._random = Random(seed)
        self._numbers = self._shops = 0
        self.given: Counter[str] = Counter()
        self.faults: list[str] = []
        self._kinds: dict[str, Callable[[str, Random], Awaitable[object]]] = {
            "kill": self._kill,
            "stop": lambda name, _: self._order("stop", name=name),
            "start": lambda name, _: self._order("start", name=name),
            "reload": lambda name, random: self._order("reload", names=[name, *random.sample(sorted(NEEDS), 2)]),
            # Not those under traffic: a reload may be noticed, an upgrade may not.
            "reload all": lambda _name, _: self._order("reload", names=sorted(NEEDS)),
            "disable": self._disable,
            "upgrade": self._upgrade,
        }

    async def play(self, seconds: float) -> None:
        """Give orders, a few at a time, and return when the last one is done and everything is allowed to run again."""
        await asyncio.gather(self._play(seconds), self._upgrade_shop(seconds))
        for name in sorted(NEEDS):
            await self._bus.call("$broker.enable", {"name": name}, timeout=ORDER_SECS)

    async def _play(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        under_way: set[asyncio.Task[None]] = set()
        while loop.time() < until:
            random = Random(self._random.random())
            kind, name = random.choice(sorted(self._kinds)), random.choice(sorted(NEEDS))
            under_way.add(asyncio.create_task(self._give(kind, name, random)))
            await asyncio.sleep(random.uniform(0.0, 0.6))
            while len(under_way) >= AT_ONCE:
                _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*under_way)

    async def _upgrade_shop(self, seconds: float) -> None:
        """Upgrade the plugin under traffic to good and bad versions in turn."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        troubles = sorted(versions.TROUBLES)
        while loop.time() < until:
            self._shops += 1
            number = self._shops
            trouble = troubles[number // 2 % len(troubles)] if number % 2 else ""
            folder = versions.write(self._place / f"shop-{number}", f"2.{number}", trouble)
            answer = await self._order("upgrade", name=versions.NAME, path=str(folder))
            if bool(answer) != bool(trouble):
                self.faults.append(f"upgrade to a version that {trouble or 'is good'}: {answer or 'taken over'}")
            self.given["bad upgrade under traffic" if trouble else "upgrade under traffic"] += 1

    async def _give(self, kind: str, name: str, random: Random) -> None:
        self.given[kind] += 1
        await self._kinds[kind](name, random)

    async def _order(self, service: str, **args: Any) -> str:
        """The text of the error that it came to, nothing when it was done."""
        try:
            await self._bus.call(f"$broker.{service}", args, timeout=ORDER_SECS)
        except BusError as error:
            if error.code not in EXPECTED:
                self.faults.append(f"{service} {args} was answered {error.code}: {error.text}")
            return f"{error.code}: {error.text}"
        return ""

    async def _kill(self, name: str, _random: Random) -> None:
        status = await self._bus.call("$broker.status", {"name": name}, timeout=ORDER_SECS)
        if pid := status["plugins"][0]["pid"]:
            signal_process(pid, self._home, signal.SIGKILL)

    async def _disable(self, name: str, random: Random) -> None:
        await self._order("disable", name=name)
        await asyncio.sleep(random.uniform(0.0, 0.5))
        await self._order("enable", name=name)

    async def _upgrade(self, name: str, _random: Random) -> None:
        self._numbers += 1
        folder = write_plugin(self._place / f"{name}-{self._numbers}", name, f"2.{self._numbers}")
        await self._order("upgrade", name=name, path=str(folder))
