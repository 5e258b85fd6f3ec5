"""Plugmesh: a real `broker run` on a home of its own."""

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import ClassVar

from plugin_sdk import connect
from tools.benchmark.child import ROOT, Child, cpu_ns
from tools.benchmark.systems.base import System, program

_START_SECS = 10.0
_POLL_SECS = 0.001


class Plugmesh(System):
    """The system whose promises are checked."""

    name: ClassVar[str] = "plugmesh"
    roles: ClassVar[str] = "tools.benchmark.roles.plugmesh"
    packages: ClassVar[tuple[str, ...]] = ("plugmesh",)

    def __init__(self) -> None:
        self._home = Path()
        self._server: Child | None = None

    def start(self, directory: Path) -> None:
        """Start the broker with `directory` as its home."""
        self._home = directory
        self._server = spawn_broker(directory, self.environment())
        asyncio.run(accepts(self._server, directory))

    def address(self) -> str:
        """The broker's home."""
        return str(self._home)

    def stop(self) -> None:
        """Stop the broker in the orderly way."""
        if self._server is not None:
            self._server.close()

    def cpu_ns(self) -> int:
        """That of the broker."""
        assert self._server is not None
        return cpu_ns(self._server.pid)

    def versions(self) -> dict[str, str]:
        """The version, with the commit when it runs from a clone."""
        found = super().versions()
        found["plugmesh"] += f" {_commit()}".rstrip()
        return found


def spawn_broker(home: Path, environment: Mapping[str, str] | None = None) -> Child:
    """Start `broker run` on `home`, with further variables, without waiting for it."""
    command = [program("broker", "plugmesh"), "run", "--home", str(home)]
    return Child("broker", command, {"BROKER_HOME": str(home), **(environment or {})}, talks=False)


async def accepts(broker: Child, home: Path) -> None:
    """Return as soon as a client has registered with `broker`.

    Raises BenchmarkError when the broker ends or is not there in time.
    """
    deadline = monotonic() + _START_SECS
    while not (home / "run" / "broker.sock").exists():
        broker.check()
        if monotonic() > deadline:
            raise broker.failure(f"made no socket within {_START_SECS:g} s")
        await asyncio.sleep(_POLL_SECS)
    async with connect(home=home, name="bench-probe"):
        pass


def _commit() -> str:
    """The commit that is measured, marked when the tree has changes; empty outside a clone."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--match="]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
