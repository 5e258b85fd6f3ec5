"""The end of a broker: in order, in time, with the right words and status, and with nothing left behind."""

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from plugin_sdk import BusError, connect
from tests.e2e.mesh import Mesh, eventually, gone

UNDONE, FORCED = 3, 4

SERVES = """
@plugin.service("ready")
async def ready() -> bool:
    return True
"""
SLOW = """
@plugin.service("slow")
async def slow(secs: float) -> str:
    import asyncio
    await asyncio.sleep(secs)
    return "done"
"""
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    while True:
        signal.pause()
async def hang(*_):
    print("I hear nothing any more", flush=True)
    time.sleep(600)
plugin.on_stop()(hang)
plugin.on_cleanup()(hang)
"""
KEEPS = """
@plugin.subscribe("last.words")
async def keep(event) -> None:
    with (plugin.data_dir / "heard").open("a") as file:
        file.write(event.data + "\\n")
"""
SPEAKS = """
@plugin.on_stop()
async def stop() -> None:
    await plugin.publish("last.words", "stop of " + plugin.name)
@plugin.on_cleanup()
async def cleanup() -> None:
    await plugin.publish("last.words", "cleanup of " + plugin.name)
"""
SAVES = """
@plugin.on_cleanup()
async def cleanup() -> None:
    await plugin.call("base.ready")
    (plugin.data_dir / "saved").touch()
"""
READS_NOTHING = """
@plugin.subscribe("flood", overflow="drop_oldest")
async def hang(event) -> None:
    import asyncio
    await asyncio.sleep(600)
"""


def signals(mesh: Mesh, number: int = signal.SIGTERM) -> None:
    assert mesh.process is not None
    mesh.process.send_signal(number)


def ends(mesh: Mesh, within: float) -> tuple[int, float]:
    """Exit status of a broker that was told to stop, and the seconds that it took."""
    assert mesh.process is not None
    began = time.monotonic()
    return mesh.process.wait(within), time.monotonic() - began


def says(mesh: Mesh, text: str) -> None:
    eventually(lambda: text in mesh.text(), 15, f"{text!r} in {mesh.text()[-3000:]}")


@contextmanager
def in_background(
    mesh: Mesh, service: str, *, callers: int = 1, timeout: float = 30.0, **args: object
) -> Iterator[Counter[str]]:
    """Callers that ask again and again, until they are told that the broker stops; counts how each call ended."""
    outcomes: Counter[str] = Counter()

    async def call_on(bus: object) -> None:
        while True:
            try:
                await bus.call(service, args, timeout=timeout)  # type: ignore[attr-defined]
                outcomes["reply"] += 1
            except BusError as error:
                outcomes[error.code] += 1
                return

    async def work() -> None:
        async with connect(home=mesh.home, name="callers") as bus:
            await asyncio.gather(*(call_on(bus) for _ in range(callers)))

    thread = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    thread.start()
    try:
        yield outcomes
    finally:
        thread.join(20)
        assert not thread.is_alive(), "the callers wait for an outcome that does not come"


def test_each_phase_is_logged_with_its_time_and_the_status_is_0(mesh: Mesh) -> None:
    mesh.add_plugin("small")
    mesh.run()
    mesh.wait_for("small")
    assert mesh.stop() == 0, mesh.text()
    names = ("finish requests", "stop plugins", "flush the database", "close the bus", "close the database")
    for number, name in enumerate(names, 1):
        assert re.search(rf"{name} \({number} of 5\) took \d\.\d\d s", mesh.text())
    assert mesh.last_message() == "stopped"


def test_requests_in_flight_finish_and_new_calls_and_registrations_are_refused(mesh: Mesh) -> None:
    mesh.add_plugin("small", SLOW)
    mesh.run()
    mesh.wait_for("small")

    async def scenario() -> tuple[object, list[str]]:
        async with connect(home=mesh.home, name="caller") as bus:
            running = asyncio.create_task(bus.call("small.slow", {"secs": 1.5}, timeout=10))
            await bus.call("small.slow", {"secs": 0.0})
            signals(mesh)
            await asyncio.to_thread(says, mesh, "finish requests (1 of 5), within")
            codes = []
            try:
                await bus.call("small.slow", {"secs": 0.0})
            except BusError as error:
                codes.append(error.code)
            late = await asyncio.to_thread(mesh.cli, "call", "small.slow")
            codes.append("registration" if "shutting down and admits nobody" in late.stderr else late.stderr)
            return await running, codes

    answer, codes = asyncio.run(scenario())
    assert answer == "done"
    assert codes == ["shutting_down", "registration"]
    assert ends(mesh, 10)[0] == 0, mesh.text()


def test_requests_that_do_not_finish_in_time_end_as_shutting_down_and_are_named(mesh: Mesh) -> None:
    mesh.environ["BROKER_SHUTDOWN_TIMEOUT_SECS"] = "4"
    mesh.add_plugin("small", SLOW)
    mesh.run()
    mesh.wait_for("small")
    with in_background(mesh, "small.slow", callers=3, secs=25.0) as outcomes:
        eventually(lambda: requests(mesh) == 3)
        signals(mesh)
        status, took = ends(mesh, 10)
    assert status == UNDONE
    assert took < 4
    assert outcomes == {"shutting_down": 3}
    assert "left undone: finish requests: 3 of small.slow still running, ended with shutting_down" in mesh.text()


def requests(mesh: Mesh) -> int:
    services = mesh.plugin("small")["services"]
    return sum(service["outstanding"] for service in services)


def test_what_plugins_publish_while_they_stop_reaches_those_that_stop_later(mesh: Mesh) -> None:
    mesh.add_plugin("keeper", KEEPS)
    mesh.add_plugin("first", SPEAKS, "requires: [keeper]\n")
    mesh.add_plugin("second", SPEAKS, "requires: [first]\n")
    mesh.run()
    mesh.wait_for("second")
    assert mesh.stop() == 0, mesh.text()
    heard = (mesh.home / "data" / "keeper" / "heard").read_text().splitlines()
    assert heard == ["stop of second", "cleanup of second", "stop of first", "cleanup of first"]


def test_a_cleanup_may_call_the_plugins_that_stop_later(mesh: Mesh) -> None:
    mesh.add_plugin("base", SERVES)
    mesh.add_plugin("top", SAVES, "requires: [base]\n")
    mesh.run()
    mesh.wait_for("top")
    assert mesh.stop() == 0, mesh.text()
    assert (mesh.home / "data" / "top" / "saved").exists(), mesh.text()


def test_events_that_still_wait_for_a_plugin_are_counted(mesh: Mesh) -> None:
    mesh.environ["BROKER_BUS_CREDIT_BYTES"] = "65536"
    mesh.add_plugin("slow", READS_NOTHING)
    mesh.run()
    mesh.wait_for("slow")

    async def flood() -> None:
        async with connect(home=mesh.home, name="flood") as bus:
            for _ in range(300):
                await bus.publish("flood", "x" * 1000)

    asyncio.run(flood())
    eventually(lambda: mesh.plugin("slow")["subscriptions"][0]["waiting"])
    mesh.stop()
    assert re.search(r"left undone: \d{2,3} events were still waiting for plugin slow", mesh.text()), mesh.text()


def test_sigterm_while_a_plugin_is_starting_stops_it_at_once(mesh: Mesh) -> None:
    folder = mesh.add_plugin("mute", manifest="timeouts: {register: 60}\n")
    folder.joinpath("main.py").write_text("import signal\nsignal.pause()\n")
    mesh.run()
    mesh.wait_for("mute", "registering")
    family = mesh.family()
    signals(mesh)
    status, took = ends(mesh, 10)
    assert status == 0, mesh.text()
    assert took < 4
    eventually(lambda: gone(family), 2.0, "nothing is left")


def test_sigterm_while_the_broker_starts_leads_to_an_orderly_stop(mesh: Mesh) -> None:
    mesh.add_plugin("small")
    mesh.spawn()
    says(mesh, "serves")
    signals(mesh)
    assert ends(mesh, 10)[0] == 0, mesh.text()
    assert mesh.last_message() == "stopped"


def test_three_signals_force_the_end_and_leave_no_process(mesh: Mesh) -> None:
    mesh.add_plugin("deaf", DEAF, "timeouts: {cleanup: 60}\n")
    mesh.run()
    mesh.wait_for("deaf")
    family = mesh.family()
    signals(mesh)
    written = mesh.home / "logs" / "deaf.log"
    eventually(lambda: written.exists() and "I hear nothing" in written.read_text(), 15, "it was told to clean up")
    signals(mesh, signal.SIGINT)
    signals(mesh, signal.SIGQUIT)
    status, took = ends(mesh, 5)
    assert status == FORCED
    assert took < 2
    assert re.search(
        r"by a second signal \(\w+\); unfinished: stop plugins, waiting for deaf \(stopping\)", mesh.text()
    )
    eventually(lambda: gone(family), 2.0, "nothing is left")


def test_the_guard_ends_a_broker_whose_loop_is_blocked_and_all_of_its_plugins(mesh: Mesh) -> None:
    mesh.environ |= {"BROKER_SHUTDOWN_TIMEOUT_SECS": "0.5", "BROKER_SHUTDOWN_FORCE_DELAY_SECS": "0.5"}
    mesh.add_plugin("small", SERVES)
    mesh.add_plugin("deaf", DEAF)
    with mesh.log.open("ab") as log:
        command = [sys.executable, str(Path(__file__).with_name("blocked_broker.py")), str(mesh.home)]
        mesh.process = subprocess.Popen(command, env=mesh.environ, stdout=log, stderr=log)
    says(mesh, "the loop is blocked")
    family = mesh.family()
    assert len(family) > 3
    signals(mesh)
    status, took = ends(mesh, 10)
    assert status == FORCED
    assert 0.9 < took < 2.5
    assert "because the time of 1 s was over; unfinished: " in mesh.text()
    assert "the main thread is in block (" in mesh.text()
    eventually(lambda: gone(family), 2.0, "nothing is left")


def test_without_force_quit_only_a_second_signal_ends_a_blocked_broker(mesh: Mesh) -> None:
    mesh.environ |= {"BROKER_SHUTDOWN_TIMEOUT_SECS": "0.1", "BROKER_SHUTDOWN_FORCE_DELAY_SECS": "0.1"}
    mesh.environ["BROKER_SHUTDOWN_FORCE_QUIT"] = "false"
    mesh.add_plugin("small", SERVES)
    with mesh.log.open("ab") as log:
        command = [sys.executable, str(Path(__file__).with_name("blocked_broker.py")), str(mesh.home)]
        mesh.process = subprocess.Popen(command, env=mesh.environ, stdout=log, stderr=log)
    says(mesh, "the loop is blocked")
    signals(mesh)
    with pytest.raises(subprocess.TimeoutExpired):
        mesh.process.wait(1.0)
    signals(mesh, signal.SIGINT)
    assert ends(mesh, 5)[0] == FORCED


def test_a_database_that_is_down_costs_a_bounded_time_and_its_pending_writes_are_reported(mesh: Mesh) -> None:
    mesh.environ["BROKER_SHUTDOWN_TIMEOUT_SECS"] = "5"
    mesh.add_plugin("small")
    mesh.run("--database", "mysql+pymysql://nobody:secret@127.0.0.1:1/none")
    mesh.wait_for("small")
    eventually(lambda: mesh.status()["broker"]["database"]["status"] == "down")
    signals(mesh)
    status, took = ends(mesh, 10)
    assert status == UNDONE
    assert took < 5
    text = r"left undone: flush the database: \d+ writes did not reach the database, which is down: .*127\.0\.0\.1"
    assert re.search(text, mesh.text()), mesh.text()
    assert "secret" not in mesh.text()


def test_a_full_disk_under_the_log_neither_hangs_the_stop_nor_changes_its_status(mesh: Mesh) -> None:
    mesh.add_plugin("small")
    with open("/dev/full", "wb") as full:
        mesh.process = subprocess.Popen(
            [sys.executable, "-m", "broker", "run"], env=mesh.environ, stdout=full, stderr=full
        )
    eventually(mesh.answers, 15)
    mesh.wait_for("small")
    family = mesh.family()
    assert mesh.stop() == 0
    eventually(lambda: gone(family), 2.0, "nothing is left")


def test_a_full_disk_under_the_logs_of_plugins_does_not_hang_the_stop(mesh: Mesh) -> None:
    (mesh.home / "logs").mkdir()
    (mesh.home / "logs" / "small.log").symlink_to("/dev/full")
    mesh.add_plugin("small", '@plugin.on_cleanup()\nasync def talk() -> None:\n    print("bye" * 1000)\n')
    mesh.run()
    mesh.wait_for("small")
    assert mesh.stop() == 0, mesh.text()
    assert "cannot be written and loses lines" in mesh.text()


def test_under_full_load_with_a_plugin_that_ignores_everything_it_ends_in_time(mesh: Mesh) -> None:
    mesh.environ |= {"BROKER_SHUTDOWN_TIMEOUT_SECS": "8", "BROKER_PLUGIN_MANAGER_MAX_CONCURRENCY": "4"}
    for number in range(18):
        mesh.add_plugin(f"small{number}", SERVES)
    mesh.add_plugin("hub", SERVES)
    mesh.add_plugin("deaf", DEAF, "timeouts: {stop: 2}\n")
    mesh.run()
    eventually(lambda: [row["state"] for row in mesh.status()["plugins"]] == 20 * ["running"], 30)
    family = mesh.family()
    with in_background(mesh, "hub.ready", callers=64) as outcomes:
        eventually(lambda: outcomes["reply"] > 1000)
        signals(mesh)
        status, took = ends(mesh, 10)
    assert 1.5 < took < 8
    assert status == 0, mesh.text()
    assert outcomes.keys() == {"reply", "shutting_down"}
    assert outcomes["shutting_down"] == 64
    assert re.search("plugin deaf was ended by SIGKILL; 1 of the processes .* did not end within", mesh.text())
    eventually(lambda: gone(family), 2.0, "nothing is left")


def test_sighup_stops_when_it_is_set_to(mesh: Mesh) -> None:
    mesh.environ["BROKER_SHUTDOWN_SIGHUP"] = "stop"
    mesh.run()
    assert mesh.stop(signal.SIGHUP) == 0, mesh.text()
    assert "SIGHUP: stopping" in mesh.text()
