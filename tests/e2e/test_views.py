"""The live views of a real broker (OBS-5): status, top, tap and graph, as a person and as a script meet them."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from plugin_sdk import connect
from tests.e2e.mesh import SMALL_PLUGIN, Mesh, eventually
from tests.e2e.terminal import terminal

ECHO = '@plugin.subscribe("ask.*")\nasync def on(event):\n    await plugin.publish("answer", event.data)\n'
SERVICE = '@plugin.service("add")\nasync def add(a, b):\n    return a + b\n'


def publish(mesh: Mesh, *events: tuple[str, object]) -> None:
    async def session() -> None:
        async with connect(home=mesh.home, name="web") as bus:
            for subject, data in events:
                await bus.publish(subject, data, headers={"message-id": "4711"})

    asyncio.run(session())


def test_top_shows_plugins_sorts_resizes_and_leaves_the_terminal_as_it_was(mesh: Mesh) -> None:
    for name in ("alpha", "omega"):
        mesh.add_plugin(name, ECHO)
    mesh.add_plugin("broken", "raise SystemExit('no driver')")
    mesh.run()
    mesh.wait_for("broken", "failed")
    with terminal(mesh, "top", "--interval", "0.2") as screen:
        modes = screen.modes()
        first = screen.wait_for("omega")
        assert first.index("alpha") < first.index("broken") < first.index("omega")
        assert "2/3 run, 1 failed" in first
        screen.wait_for("broken: plugin 'broken' did not start")
        assert "RESTARTS" not in first
        screen.resize(200, 50)
        screen.wait_for("RESTARTS")
        screen.press("i")
        screen.wait_for("NAME▼")
        screen.press("m")
        screen.wait_for("MEM▼")
        screen.press("q")
        assert screen.end() == 0
        assert screen.modes() == modes


def test_top_survives_a_restart_of_the_broker_and_ends_by_control_c(mesh: Mesh) -> None:
    mesh.run()
    with terminal(mesh, "top", "--interval", "0.2") as screen:
        modes = screen.modes()
        screen.wait_for("0/0 run")
        mesh.stop()
        screen.wait_for("no answer from the broker")
        mesh.run()
        screen.wait_for("replies/s")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 130
        assert screen.modes() == modes


def test_top_for_a_script_prints_one_table(mesh: Mesh) -> None:
    mesh.home.joinpath("broker.toml").write_text("[bus]\nheartbeat_secs = 0.1\n")
    mesh.add_plugin("alpha", ECHO)
    mesh.run()
    mesh.wait_for("alpha")
    done = mesh.cli("top", "--once", "--interval", "0.2", "--sort", "memory")
    assert done.returncode == 0, done.stderr
    assert "alpha" in done.stdout
    assert "\x1b" not in done.stdout


def test_status_has_colour_on_a_terminal_and_none_in_a_pipe(mesh: Mesh) -> None:
    mesh.add_plugin("alpha", ECHO)
    mesh.run()
    mesh.wait_for("alpha")
    assert "\x1b" not in mesh.cli("status").stdout
    with terminal(mesh, "status") as screen:
        assert screen.end() == 0
        assert "\x1b[32mrunning" in screen.text


def test_a_plugin_that_was_started_by_hand_shows_its_version_everywhere(mesh: Mesh, tmp_path: Path) -> None:
    mesh.run()
    program = tmp_path / "guest.py"
    program.write_text(SMALL_PLUGIN.format(name="guest", body="").replace('"guest")', '"guest", version="2.7.1")'))
    guest = subprocess.Popen([sys.executable, str(program)], env=mesh.environ)
    try:
        row = mesh.wait_for("guest")
        assert (row["version"], row["managed"]) == ("2.7.1", False)
        assert "guest 2.7.1, running" in mesh.cli("status", "guest").stdout

        eventually(lambda: "guest" in mesh.rows())

        def stored() -> list[tuple[str]]:
            with sqlite3.connect(mesh.home / "broker.db") as database:
                return database.execute("SELECT version FROM t_plugin WHERE plugin_id = 'guest'").fetchall()

        eventually(lambda: stored() == [("2.7.1",)], what="t_plugin has the version")
    finally:
        guest.terminate()
        guest.wait()
    row = mesh.wait_for("guest", "stopped")
    assert row["uptime_secs"] is None
    assert row["since_secs"] >= 0


def test_tap_shows_what_is_wanted_and_counts_what_is_too_much(mesh: Mesh) -> None:
    mesh.run()
    tap = mesh.start_cli("tap", "order.>", "--where", "total>100", "--where", "headers.message-id=4711", "--count", "2")
    assert tap.stderr is not None
    assert "listening" in tap.stderr.readline()
    publish(mesh, *(("order.paid", {"total": total}) for total in (50, 150, 99, 200, 300)))
    shown, _ = tap.communicate(timeout=10)
    assert [json.loads(line.split("  ")[2]) for line in shown.splitlines()] == [{"total": 150}, {"total": 200}]

    tap = mesh.start_cli("tap", "order.>", "--rate", "10", "--count", "500", "--headers")
    assert tap.stderr is not None
    assert "listening" in tap.stderr.readline()
    publish(mesh, *(("order.paid", number) for number in range(500)))
    shown, complaints = tap.communicate(timeout=20)
    lines = [line for line in shown.splitlines() if "order.paid" in line]
    assert 10 <= len(lines) < 100
    assert shown.count("message-id: 4711") == len(lines)
    skipped = [int(line.split()[1]) for line in complaints.splitlines() if "not shown" in line]
    assert len(lines) + sum(skipped) == 500


def test_a_tap_of_events_that_are_no_msgpack_goes_on(mesh: Mesh) -> None:
    mesh.run()
    tap = mesh.start_cli("tap", ">", "--json", "--count", "2")
    assert tap.stderr is not None
    assert "listening" in tap.stderr.readline()
    publish(mesh, ("a", b"\xc1"), ("b", {"x": b"\x00\xff"}))
    shown, _ = tap.communicate(timeout=10)
    assert [json.loads(line)["subject"] for line in shown.splitlines()] == ["a", "b"]


def test_wrong_conditions_are_wrong_usage(mesh: Mesh) -> None:
    done = mesh.cli("tap", ">", "--where", "nonsense")
    assert done.returncode == 2
    assert "write FIELD=VALUE" in done.stderr


@pytest.mark.parametrize(
    ("form", "parts"),
    [
        ("text", ["ask.one", "web → alpha", "calc.add", "cli → calc"]),
        ("mermaid", ["flowchart LR", '(["ask.one"])', '{{"calc.add"}}']),
        ("dot", ["digraph mesh {", 'label="ask.one", shape=ellipse']),
        ("json", ['"observed_secs"']),
    ],
)
def test_the_graph_shows_who_does_what(mesh: Mesh, form: str, parts: list[str]) -> None:
    mesh.add_plugin("alpha", ECHO)
    mesh.add_plugin("calc", SERVICE)
    mesh.run()
    for name in ("alpha", "calc"):
        mesh.wait_for(name)
    assert mesh.cli("graph", "--for", "0").returncode == 0
    publish(mesh, ("ask.one", 1))
    assert mesh.cli("call", "calc.add", "[1, 2]").returncode in (0, 1)
    done = mesh.cli("graph", "--for", "0", "--format", form)
    assert done.returncode == 0, done.stderr
    for part in parts:
        assert part in done.stdout


def test_the_operator_alone_may_see_the_graph(mesh: Mesh) -> None:
    key = mesh.cli("key", "add", "guest").stdout.strip()
    mesh.run()

    async def ask() -> str:
        async with connect(home=mesh.home, key=key, name="guest") as bus:
            try:
                await bus.call("$broker.graph", {})
            except Exception as error:  # noqa: BLE001
                return str(error)
            return ""

    assert os.path.exists(key)
    assert "operator" in asyncio.run(ask())
