"""A subscriber that stops reading holds its publishers up and nobody else, and everybody who asks is told so."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from plugin_sdk import CallError, connect
from plugin_sdk.blocking import connect_blocking
from tests.e2e.mesh import Mesh, eventually

SLEEPY = """
seen = []

@plugin.subscribe("load.>")
async def on_load(event):
    seen.append(event.data[0])

@plugin.service("seen")
async def report():
    return [len(seen), seen == sorted(seen)]
"""
CALM = """
@plugin.service("echo")
async def echo(value):
    return value
"""
FILLER = b"x" * 1000


@pytest.fixture
def stopped(mesh: Mesh) -> int:
    """The process of a plugin that reads nothing any more."""
    mesh.add_plugin("sleepy", SLEEPY)
    mesh.add_plugin("calm", CALM)
    mesh.run()
    mesh.wait_for("calm")
    pid = mesh.wait_for("sleepy")["pid"]
    os.kill(pid, signal.SIGSTOP)
    return int(pid)


def publish_until_it_waits(mesh: Mesh) -> int:
    """Publish from code that waits; returns how many events the bus took before it took none."""
    number = 0
    gives_up = pytest.raises(CallError, match="timeout: could not publish within 1 s")
    with connect_blocking(home=mesh.home, name="talker") as bus, gives_up:
        while number < 100_000:
            bus.publish("load.a", [number, FILLER], timeout=1.0)
            number += 1
    return number


def slow(mesh: Mesh) -> list[dict[str, Any]]:
    return list(mesh.status()["slow_consumers"])


def test_plain_code_that_publishes_waits_for_a_slow_subscriber_and_gives_up_in_time(mesh: Mesh, stopped: int) -> None:
    taken = publish_until_it_waits(mesh)
    assert 1000 < taken < 10_000
    assert json.loads(mesh.cli("call", "calm.echo", '"still here"').stdout) == "still here"
    os.kill(stopped, signal.SIGCONT)

    def all_arrived() -> bool:
        answer = json.loads(mesh.cli("call", "sleepy.seen").stdout)
        return bool(answer == [taken, True])

    eventually(all_arrived, 20, "every event arrives, in order")


def test_a_slow_consumer_is_in_the_status_in_the_log_and_on_the_bus(mesh: Mesh, stopped: int) -> None:
    tap = mesh.start_cli("tap", "$broker.slow_consumer", "--json", "--count", "2")
    assert tap.stderr is not None
    tap.stderr.readline()  # it listens
    publisher = threading.Thread(target=publish_for_long, args=(mesh,), daemon=True)
    publisher.start()
    (found,) = eventually(lambda: slow(mesh), 15, "the slow consumer is in the status")
    assert (found["name"], found["role"], found["patterns"], found["overflow"]) == (
        "sleepy",
        "plugin",
        ["load.>"],
        "block",
    )
    assert found["publishers"] == ["talker"]
    assert found["unread_bytes"] > 500_000
    shown = mesh.cli("status").stdout
    assert "slow consumer sleepy: load.> (block) for" in shown
    assert "holds up talker" in shown
    eventually(lambda: "sleepy is a slow consumer: load.> (block)" in mesh.text(), 5)
    os.kill(stopped, signal.SIGCONT)
    told, _ = tap.communicate(timeout=20)
    events = [json.loads(line)["data"] for line in told.splitlines()]
    assert [(event["name"], event["state"]) for event in events] == [("sleepy", "slow"), ("sleepy", "recovered")]
    publisher.join(20)
    eventually(lambda: not slow(mesh), 10, "nobody is slow any more")
    assert mesh.status()["broker"]["counters"]["slow_consumers"] == 1


def publish_for_long(mesh: Mesh) -> None:
    async def work() -> None:
        async with connect(home=mesh.home, name="talker") as bus:
            for number in range(6000):
                await bus.publish("load.a", [number, FILLER])

    asyncio.run(work())


def test_the_memory_of_the_broker_is_bounded_for_all_peers_together(mesh: Mesh) -> None:
    """Readers that do not read, each of them under every bound of its own."""
    mesh.environ |= {"BROKER_BUS_MAX_WAITING_BYTES": str(16 << 20)}
    mesh.run()
    readers = [start_hoard(mesh) for _ in range(6)]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "subscribed\n"
            reader.send_signal(signal.SIGSTOP)
        asyncio.run(flood(mesh, 60 << 20))
        broker = mesh.status()["broker"]
        assert broker["max_waiting_bytes"] == 16 << 20
        assert 10 << 20 < broker["waiting_bytes"] <= 12 << 20, "a quarter is kept for what cannot be dropped"
        assert broker["counters"]["events_dropped"] > 0
        eventually(lambda: len(slow(mesh)) == len(readers), 5, "all of them are named")
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


LIBRARY = """
@plugin.service("volume")
async def volume() -> bytes:
    return bytes(7 << 20)
"""
READER = """
import asyncio, os, signal
from plugin_sdk import connect

async def main():
    async with connect(name="reader") as bus:
        calls = [asyncio.create_task(bus.call("library.volume", timeout=30)) for _ in range(32)]
        # They leave in one turn of the loop: with the first answer there, all have been asked.
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        os.kill(os.getpid(), signal.SIGSTOP)
        print([len(answer) for answer in await asyncio.gather(*calls)] == [7 << 20] * 32, flush=True)

asyncio.run(main())
"""


def all_are_answered(mesh: Mesh, number: int) -> bool:
    service = mesh.plugin("library")["services"][0]
    return (service["served"], service["outstanding"]) == (number, 0)


def test_a_client_that_is_behind_with_many_large_answers_gets_them_all(mesh: Mesh) -> None:
    """For a moment it does not read; that is not the same as a peer that never does."""
    mesh.add_plugin("library", LIBRARY)
    mesh.run()
    mesh.wait_for("library")
    with subprocess.Popen(
        [sys.executable, "-c", READER], env=mesh.environ, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert os.WIFSTOPPED(os.waitpid(reader.pid, os.WUNTRACED)[1])
        eventually(lambda: all_are_answered(mesh, 32), 20, "all are answered")
        reader.send_signal(signal.SIGCONT)
        assert reader.stdout.readline() == "True\n"
    assert mesh.stop() == 0, mesh.text()


HOARD = """
import asyncio
from plugin_sdk import connect

async def main():
    async with connect(name="hoard") as bus, bus.subscribe("flood.>", overflow="drop_oldest") as events:
        print("subscribed", flush=True)
        async for _ in events:
            pass

asyncio.run(main())
"""


def start_hoard(mesh: Mesh) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOARD], env=mesh.environ, stdout=subprocess.PIPE, text=True)


async def flood(mesh: Mesh, amount: int) -> None:
    body = b"x" * 10_000
    async with connect(home=mesh.home, name="flood") as bus:
        for _ in range(amount // len(body)):
            await bus.publish("flood.a", body)
