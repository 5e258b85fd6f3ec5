"""A client of under a hundred lines, written from docs/PROTOCOL.md alone, gets everything from a real broker."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import CallError, connect

STRANGER = Path(__file__).with_name("stranger.py")
HEARTBEAT_SECS = "0.2"
PATIENCE_SECS = 10
MET = {
    "serve": "ok",
    "subscribe": "ok",
    "call": 3,
    "nobody": "unavailable",
    "events": [["stranger.came", {"from": "afar"}]],
}


class Mesh:
    """A broker with a home of its own, and strangers beside it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._started: list[subprocess.Popen[str]] = []

    def broker(self) -> subprocess.Popen[str]:
        """Start a broker and return once it says that it serves."""
        process = self._start("-c", "from broker.cli.main import main; main()", "--home", str(self.home), "run")
        assert process.stdout is not None
        first = process.stdout.readline()
        assert f"serves {self.home}" in first, first + process.communicate()[0]
        return process

    def stranger(self) -> subprocess.Popen[str]:
        """Start a stranger."""
        return self._start(str(STRANGER), str(self.home))

    def end(self) -> None:
        """End what still runs, the youngest first."""
        for process in reversed(self._started):
            process.kill()
            print(process.communicate()[0])

    def _start(self, *command: str) -> subprocess.Popen[str]:
        environ = {**os.environ, "BROKER_BUS_HEARTBEAT_SECS": HEARTBEAT_SECS}
        process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
        )
        self._started.append(process)
        return process


def line_of(process: subprocess.Popen[str]) -> Any:
    """The next line that a stranger prints; the time limit of the test bounds the wait."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path / "home")
    try:
        yield mesh
    finally:
        mesh.end()


pytestmark = pytest.mark.timeout(PATIENCE_SECS)


def test_a_stranger_registers_serves_subscribes_publishes_and_calls(mesh: Mesh) -> None:
    mesh.broker()
    assert line_of(mesh.stranger()) == MET


def test_others_call_a_stranger_as_they_call_any_plugin(mesh: Mesh) -> None:
    async def use() -> None:
        async with connect(home=mesh.home) as bus:
            assert await bus.call("stranger.add", [20, 22]) == 42
            with pytest.raises(CallError, match="unavailable: no plugin serves"):
                await bus.call("stranger.subtract", [1])

    mesh.broker()
    line_of(mesh.stranger())
    asyncio.run(use())


def test_a_stranger_is_led_through_its_life_like_any_plugin(mesh: Mesh) -> None:
    async def state() -> str:
        async with connect(home=mesh.home) as bus:
            answer = await bus.call("$broker.status", {"name": "stranger"})
            return str(answer["plugins"][0]["state"])

    mesh.broker()
    line_of(mesh.stranger())
    while (now := asyncio.run(state())) != "running":
        assert now != "failed"


def test_a_stranger_that_was_forgotten_registers_again(mesh: Mesh) -> None:
    broker = mesh.broker()
    stranger = mesh.stranger()
    assert line_of(stranger) == MET
    broker.kill()
    broker.wait()
    mesh.broker()
    assert line_of(stranger) == MET


def test_a_stranger_leaves_in_order(mesh: Mesh) -> None:
    async def calls_in_vain() -> str:
        async with connect(home=mesh.home) as bus:
            try:
                await bus.call("stranger.add", [1])
            except CallError as error:
                return error.code
            return ""

    mesh.broker()
    stranger = mesh.stranger()
    line_of(stranger)
    stranger.send_signal(signal.SIGINT)
    assert stranger.wait(PATIENCE_SECS) == 0
    assert asyncio.run(calls_in_vain()) == "unavailable"


def test_a_stranger_takes_less_than_a_hundred_lines_and_nothing_of_plugmesh() -> None:
    source = STRANGER.read_text()
    assert len(source.splitlines()) < 100
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {
        alias.name if isinstance(node, ast.Import) else str(node.module) for node in nodes for alias in node.names
    }
    assert modules == {"json", "secrets", "sys", "pathlib", "typing", "msgpack", "zmq"}
