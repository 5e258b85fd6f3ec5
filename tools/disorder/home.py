"""A real broker on a home of its own, as a process that can be hurt."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from plugin_sdk import BusError, connect

ROOT = Path(__file__).resolve().parents[2]
START_SECS = 20.0


class Unsettled(Exception):
    """Something that must come about did not in time; the text says what."""


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment without BROKER_*, which would lead to a broker that is not under test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def spawn(command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one at the latest, its output appended to `log`."""
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "KILL", *command]
    with log.open("ab") as output:
        return subprocess.Popen(command, env=dict(environment), stdout=output, stderr=output)


async def until(condition: Callable[[], Any], within: float, what: str) -> Any:
    """The first true value of `condition`, which may be a coroutine function; raises Unsettled."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise Unsettled(f"{what}: not within {within:g} s")
        await asyncio.sleep(0.05)


class Home:
    """A home, and the broker that runs on it.

    Args:
        path: an empty folder; short, as sockets need.
        settings: further variables of the broker's environment.
    """

    def __init__(self, path: Path, settings: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.log = path.parent / f"{path.name}.log"
        self.environment = clean_environment({"BROKER_HOME": str(path), **(settings or {})})
        self.broker: subprocess.Popen[bytes] | None = None
        path.mkdir(mode=0o700, exist_ok=True)

    @property
    def endpoint(self) -> str:
        """Where peers connect."""
        return f"ipc://{self.path}/run/broker.sock"

    @property
    def key(self) -> str:
        """The operator's key."""
        return (self.path / "keys" / "client.key").read_text().strip()

    @property
    def pid(self) -> int:
        """The process id of the broker that runs."""
        assert self.broker is not None, "it has been started"
        return self.broker.pid

    def spawn(self) -> None:
        """Start the broker without waiting for it."""
        self.broker = spawn([sys.executable, "-m", "broker", "run"], self.environment, self.log)

    async def start(self) -> None:
        """Start the broker and return once it answers; raises Unsettled."""
        self.spawn()
        await until(self.answers, START_SECS, f"the broker answers, its log is {self.log}")

    async def answers(self) -> bool:
        """Whether the broker is there."""
        if self.broker is None or self.broker.poll() is not None:
            raise Unsettled(f"the broker ended by itself, its log is {self.log}")
        if not (self.path / "run" / "broker.sock").exists():
            return False
        try:
            await self.ask("$broker.status")
        except BusError:
            return False
        return True

    async def ask(self, service: str, args: Mapping[str, Any] | None = None, timeout: float = 5.0) -> Any:
        """Ask the broker as its operator; raises BusError."""
        async with connect(home=self.path, name="operator", timeout=timeout) as bus:
            return await bus.call(service, dict(args or {}), timeout=timeout)

    def size(self) -> tuple[int, int]:
        """Bytes of memory and number of descriptors of the broker, without the logs of plugins."""
        return psutil.Process(self.pid).memory_info().rss, self.descriptors().total()

    def descriptors(self) -> Counter[str]:
        """What the descriptors of the broker are, and how many of each; logs of plugins are opened when they write."""
        links = [os.readlink(link) for link in Path(f"/proc/{self.pid}/fd").iterdir() if link.is_symlink()]
        return Counter(link.partition(":")[0] for link in links if not link.startswith(str(self.path / "logs")))

    async def end(self, number: int = signal.SIGTERM, within: float = 60.0) -> int:
        """Signal the broker and wait for its end; returns its exit status."""
        assert self.broker is not None, "it has been started"
        broker = self.broker
        broker.send_signal(number)
        await until(lambda: broker.poll() is not None, within, f"the broker ends after {signal.Signals(number).name}")
        return broker.returncode

    def close(self) -> None:
        """Leave no broker behind."""
        if self.broker is not None and self.broker.poll() is None:
            self.broker.kill()
            self.broker.wait()
