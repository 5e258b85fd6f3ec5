"""The metrics of a real broker (OBS-2, OBS-3, OBS-4): each one is provoked here, and is seen to move."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import connect
from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import CallError, RegistrationError
from tests.e2e.mesh import Mesh, eventually
from tests.unit.telemetry import prometheus

WORKER = """
import os, threading, time

@plugin.subscribe("work")
async def work(event):
    if event.data == "fail":
        raise ValueError("as asked")
    if event.data == "burn":
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
    if event.data == "grow":
        plugin.kept = b"x" * 50_000_000
    if event.data == "thread":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    if event.data == "answer":
        await plugin.publish("answered", 1)

@plugin.service("echo")
async def echo(value):
    return value

@plugin.service("die")
async def die():
    os._exit(3)
"""
SLOW = """
import asyncio

@plugin.subscribe("flood", overflow="drop_oldest", max_pending=10)
async def flood(event):
    await asyncio.sleep(60)

@plugin.service("one", concurrency=1)
async def one(secs):
    await asyncio.sleep(secs)
"""
UNCLEAN = """
@plugin.on_cleanup()
async def cleanup():
    raise RuntimeError("will not clean up")
"""
HEARTBEAT_SECS = 0.2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configure(mesh: Mesh, port: int, more: str = "") -> None:
    mesh.home.joinpath("broker.toml").write_text(
        f"[plugin_manager]\nenable_metrics = true\nmetrics_port = {port}\n"
        f"[bus]\nheartbeat_secs = {HEARTBEAT_SECS}\ncredit_bytes = 65536\n{more}"
    )


def fetch(port: int, accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


class Shop:
    """A broker with a worker, a slow plugin, one that does not clean up, and its metrics."""

    def __init__(self, mesh: Mesh, port: int) -> None:
        self.mesh = mesh
        self.port = port
        self.threads: list[threading.Thread] = []

    def value(self, name: str, plugin: str = "", **labels: str) -> float:
        """One sample now; 0 when there is none."""
        if plugin:
            labels |= {"plugin": plugin, "process": ""}
        return prometheus.read(fetch(self.port)).get((name, tuple(sorted(labels.items()))), 0.0)

    def on_the_bus(self, act: Callable[[Bus], Awaitable[Any]]) -> None:
        """Do something as a client."""

        async def session() -> None:
            async with connect(home=self.mesh.home, name="test") as bus:
                await act(bus)

        asyncio.run(session())

    def work(self, what: str) -> None:
        """Let the worker do something."""
        self.on_the_bus(lambda bus: bus.publish("work", what))

    def call(self, service: str, args: Any) -> None:
        """Call a service."""
        self.on_the_bus(lambda bus: bus.call(service, args, timeout=30.0))

    def flood(self) -> None:
        """More events than the slow plugin takes."""

        async def publish(bus: Bus) -> None:
            for _ in range(50):
                await bus.publish("flood", b"x" * 20000)

        self.on_the_bus(publish)

    def install(self, name: str, manifest: str) -> None:
        """Put a plugin into the folder, and let the broker see it."""
        self.mesh.add_plugin(name, manifest=manifest)
        self.mesh.cli("reload-config")


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True) as folder:
        mesh = Mesh(Path(folder) / "home")
        mesh.home.mkdir(mode=0o700)
        port = free_port()
        configure(mesh, port)
        for name, body in (("worker", WORKER), ("slow", SLOW), ("unclean", UNCLEAN), ("plain", "")):
            mesh.add_plugin(name, body)
        try:
            mesh.run()
            for name in ("worker", "slow", "unclean", "plain"):
                mesh.wait_for(name)
            shop = Shop(mesh, port)
            yield shop
            for thread in shop.threads:
                thread.join()
        finally:
            mesh.close()


def die(shop: Shop) -> None:
    with pytest.raises(CallError, match="lost"):
        shop.call("worker.die", {})
    shop.mesh.wait_for("worker")


def queue_requests(shop: Shop) -> None:
    """Three requests to a service that takes one at a time; they go on while the metrics are looked at."""

    async def ask(bus: Bus) -> None:
        await asyncio.gather(*(bus.call("slow.one", 1.0, timeout=30.0) for _ in range(3)))

    thread = threading.Thread(target=shop.on_the_bus, args=(ask,))
    thread.start()
    shop.threads.append(thread)


def refuse_somebody(shop: Shop) -> None:
    async def intrude() -> None:
        async with connect(home=shop.mesh.home, key="a wrong key", name="test"):
            pass

    with pytest.raises(RegistrationError, match="bad_token"):
        asyncio.run(intrude())


Act = Callable[[Shop], Any]

# What OBS-2 and OBS-3 name, the metric that shows it, what makes that move, and the labels beside the plugin's.
MOVES: list[tuple[str, str, str, Act]] = [
    ("uptime", "plugmesh_plugin_uptime_seconds", "worker", lambda shop: None),
    ("memory", "plugmesh_plugin_memory_bytes", "worker", lambda shop: shop.work("grow")),
    ("CPU", "plugmesh_plugin_cpu_seconds_total", "worker", lambda shop: shop.work("burn")),
    ("threads", "plugmesh_plugin_threads", "worker", lambda shop: shop.work("thread")),
    ("events received", "plugmesh_plugin_events_received_total", "worker", lambda shop: shop.work("answer")),
    ("events published", "plugmesh_plugin_events_published_total", "worker", lambda shop: shop.work("answer")),
    ("events failed", "plugmesh_plugin_events_failed_total", "worker", lambda shop: shop.work("fail")),
    ("restarts", "plugmesh_plugin_restarts_total", "worker", die),
    # The process is a new one now: what is no counter begins at nothing.
    ("average handling time", "plugmesh_plugin_handling_mean_seconds", "worker", lambda shop: shop.work("answer")),
    ("maximum handling time", "plugmesh_plugin_handling_longest_seconds", "worker", lambda shop: shop.work("burn")),
    ("error rate", "plugmesh_plugin_error_ratio", "worker", lambda shop: shop.work("fail")),
    ("requests", "plugmesh_plugin_requests_handled_total", "worker", lambda shop: shop.call("worker.echo", 1)),
    ("slow consumers", "plugmesh_slow_consumers_found_total", "", lambda shop: shop.flood()),
    ("drops", "plugmesh_plugin_events_dropped_total", "slow", lambda shop: shop.flood()),
    ("drops in total", "plugmesh_events_dropped_total", "", lambda shop: shop.flood()),
    ("queue of requests", "plugmesh_requests_waiting", "", queue_requests),
    ("events per second", "plugmesh_events_per_second", "", lambda shop: shop.flood()),
    ("events", "plugmesh_events_published_total", "", lambda shop: shop.work("answer")),
    ("memory in total", "plugmesh_memory_bytes", "", lambda shop: shop.work("grow")),
    ("CPU in total", "plugmesh_cpu_seconds_total", "", lambda shop: shop.work("burn")),
    ("refused registrations", "plugmesh_registrations_refused_total", "", refuse_somebody),
    ("plugins in total", "plugmesh_plugins", "", lambda shop: shop.install("late", "")),
    ("conflicts", "plugmesh_dependency_conflicts", "", lambda shop: shop.install("enemy", "conflicts: [plain]\n")),
    ("plugins failed", "plugmesh_plugins_failed", "", lambda shop: shop.install("lost", "requires: [ghost]\n")),
    ("unmet", "plugmesh_dependency_unmet", "", lambda shop: shop.install("lost2", "requires: [ghost]\n")),
    ("cycles", "plugmesh_dependency_cycles", "", lambda shop: shop.install("ring", "requires: [ring]\n")),
    ("cleanups", "plugmesh_cleanups_done_total", "", lambda shop: shop.call("$broker.stop", {"name": "plain"})),
    (
        "failed cleanups",
        "plugmesh_cleanups_failed_total",
        "",
        lambda shop: shop.call("$broker.stop", {"name": "unclean"}),
    ),
]


@pytest.mark.parametrize(("what", "name", "plugin", "act"), MOVES, ids=[each[0] for each in MOVES])
def test_it_moves_when_it_is_provoked(shop: Shop, what: str, name: str, plugin: str, act: Act) -> None:
    if what in ("memory in total", "memory"):
        # What was read while a process was only beginning stands until it is read again.
        eventually(lambda: shop.value(name, plugin) > 10_000_000)
    before = shop.value(name, plugin)
    act(shop)
    eventually(lambda: shop.value(name, plugin) > before, 15, f"{what}: {name} goes up from {before}")


def test_status_plugins_running_queues_and_the_ratio_of_cleanups_move_both_ways(shop: Shop) -> None:
    """After those above, which left `plain` stopped."""
    assert shop.value("plugmesh_plugin_up", "plain") == 0
    assert shop.value("plugmesh_plugin_state", "plain", state="stopped") == 1
    assert 0 < shop.value("plugmesh_cleanup_success_ratio") < 1
    running = shop.value("plugmesh_plugins_running")
    shop.call("$broker.start", {"name": "plain"})
    assert shop.value("plugmesh_plugins_running") == running + 1
    assert shop.value("plugmesh_plugin_state", "plain", state="running") == 1
    shop.flood()
    eventually(lambda: shop.value("plugmesh_events_waiting") > 0 and shop.value("plugmesh_slow_consumers") == 1)
    assert 0 < shop.value("plugmesh_waiting_bytes") < shop.value("plugmesh_waiting_bytes_limit")
    shop.call("$broker.stop", {"name": "slow"})
    eventually(lambda: shop.value("plugmesh_events_waiting") == 0 and shop.value("plugmesh_slow_consumers") == 0)


def test_both_text_formats_of_a_whole_broker_are_strictly_valid(shop: Shop) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    plain, strict = prometheus.read(fetch(shop.port)), prometheus.read_openmetrics(fetch(shop.port, accept))
    assert plain.keys() == strict.keys()


def test_promtool_finds_nothing_to_complain_of(shop: Shop, promtool: str) -> None:
    done = subprocess.run(
        [promtool, "check", "metrics"], input=fetch(shop.port), capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_port_in_use_costs_the_metrics_and_nothing_else(mesh: Mesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configure(mesh, port)
        mesh.run()
        (warning,) = mesh.status()["broker"]["warnings"]
        assert f"127.0.0.1:{port}: Address already in use" in warning
        assert "plugin_manager.metrics_port" in warning
        assert warning in mesh.text()
        assert warning in mesh.cli("status").stdout
    other = free_port()
    configure(mesh, other)
    assert "plugin_manager.metrics_port: applied" in mesh.cli("reload-config").stdout
    assert "plugmesh_plugins 0.0" in fetch(other)
    assert mesh.status()["broker"]["warnings"] == []


def test_a_reload_moves_the_endpoint_and_closes_it(mesh: Mesh) -> None:
    first, second = free_port(), free_port()
    configure(mesh, first)
    mesh.run()
    assert fetch(first)
    configure(mesh, second)
    assert mesh.cli("reload-config").returncode == 0
    assert fetch(second)
    mesh.home.joinpath("broker.toml").write_text(f"[plugin_manager]\nmetrics_port = {second}\n")
    assert mesh.cli("reload-config").returncode == 0
    for port in (first, second):
        with pytest.raises(OSError, match="refused"):
            fetch(port)


def test_a_loop_that_hangs_is_told_and_so_is_a_shutdown_that_takes_too_long(mesh: Mesh) -> None:
    port = free_port()
    configure(mesh, port, "[shutdown]\ntimeout_secs = 0.2\nforce_quit = false\n")
    mesh.add_plugin("small", '@plugin.service("ready")\nasync def ready(): return 1')
    command = [sys.executable, str(Path(__file__).with_name("blocked_broker.py")), str(mesh.home)]
    with mesh.log.open("ab") as log:
        mesh.process = subprocess.Popen(command, env=mesh.environ, stdout=log, stderr=log)
    eventually(lambda: "the loop is blocked" in mesh.text(), 20)
    before = figures(port)
    assert (before["plugmesh_responding"], before["plugmesh_shutdown_seconds"]) == (0, 0)
    os.kill(mesh.process.pid, signal.SIGTERM)
    eventually(lambda: figures(port)["plugmesh_shutdown_seconds"] > 0.2)
    assert figures(port)["plugmesh_shutdown_limit_seconds"] == 0.2


def figures(port: int) -> dict[str, float]:
    return {name: value for (name, _), value in prometheus.read(fetch(port)).items()}
