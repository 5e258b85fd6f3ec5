"""The mission once, on real processes: plugins register, talk, are stopped, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import pymysql
import pytest

from tests.e2e.mesh import DEMO, SMALL_PLUGIN, Mesh, eventually, gone

LOGIN = '{"user_id": "12345"}'


@pytest.fixture
def mesh(mesh: Mesh) -> Mesh:
    """A home as it is after the installation."""
    mesh.database = None
    return mesh


def start_demo(mesh: Mesh, *options: str) -> None:
    mesh.run("--demo", *options)
    for name in DEMO:
        mesh.wait_for(name)
    shown = json.loads(mesh.cli("status", "--json").stdout)["plugins"]
    assert {row["name"]: row["registration"] for row in shown if row["managed"]} == dict.fromkeys(DEMO, "registered")


def run_login_flow(mesh: Mesh) -> list[dict[str, object]]:
    tap = mesh.start_cli("tap", "user.>", "--count", "2", "--json")
    assert tap.stderr is not None
    assert "listening" in tap.stderr.readline()
    assert mesh.cli("pub", "user.login", LOGIN).returncode == 0
    seen, _ = tap.communicate(timeout=10)
    return [json.loads(line) for line in seen.splitlines()]


def test_the_login_flow_runs_and_the_broker_stops_in_order(mesh: Mesh) -> None:
    start_demo(mesh)
    events = run_login_flow(mesh)
    assert [event["subject"] for event in events] == ["user.login", "user.welcome"]
    answer = mesh.cli("call", "users.get", LOGIN)
    assert json.loads(answer.stdout)["user_id"] == "12345"
    eventually(lambda: list((mesh.home / "data" / "notification").rglob("*.eml")), what="the mail was written")
    eventually(lambda: {status for status, _ in mesh.rows().values()} == {2}, what="SQL says registered")
    family = mesh.family()
    began = time.monotonic()
    assert mesh.stop() == 0, mesh.text()
    assert time.monotonic() - began < 3.0
    assert gone(family)
    assert {name: status for name, (status, _) in mesh.rows().items()} == dict.fromkeys(DEMO, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_every_stop_signal_leads_to_an_orderly_stop(mesh: Mesh, number: signal.Signals) -> None:
    mesh.add_plugin("small")
    mesh.run()
    mesh.wait_for("small")
    family = mesh.family()
    assert mesh.stop(number) == 0, mesh.text()
    assert gone(family)


@pytest.mark.mariadb
def test_the_login_flow_runs_on_mariadb(mesh: Mesh, mariadb_url: str) -> None:
    start_demo(mesh, "--database", mariadb_url)
    assert [event["subject"] for event in run_login_flow(mesh)] == ["user.login", "user.welcome"]
    eventually(lambda: registered(mariadb_url) == dict.fromkeys(DEMO, 2), 15, "MariaDB says registered")
    assert mesh.stop() == 0, mesh.text()
    assert registered(mariadb_url) == dict.fromkeys(DEMO, 0)


def registered(url: str) -> dict[str, int]:
    from sqlalchemy import make_url

    parts = make_url(url)
    connection = pymysql.connect(
        user=parts.username or "",
        password=str(parts.password or ""),
        host=parts.host,
        port=parts.port or 0,
        unix_socket=parts.query.get("unix_socket"),
        database=parts.database,
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT plugin_id, register_status FROM t_plugin")
        return dict(cursor.fetchall())


def test_kill_9_of_the_broker_leaves_no_child_and_a_hand_started_plugin_rides_it_out(mesh: Mesh) -> None:
    start_demo(mesh)
    script = mesh.home.parent / "hand.py"
    script.write_text(
        "from plugin_sdk import Plugin\n"
        'plugin = Plugin("hand")\n'
        '@plugin.service("where")\n'
        "async def where() -> int:\n    import os\n    return os.getpid()\n"
        "plugin.run()\n"
    )
    hand = subprocess.Popen([sys.executable, str(script)], env=mesh.environ)
    try:
        mesh.wait_for("hand")
        family = mesh.family()
        assert mesh.process is not None
        mesh.process.kill()
        mesh.process.wait()
        eventually(lambda: gone(family), 2.0, "no child is left")
        mesh.run("--demo")
        row = mesh.wait_for("hand")
        assert row["managed"] is False
        assert row["pid"] == hand.pid
        assert json.loads(mesh.cli("call", "hand.where").stdout) == hand.pid
        for name in DEMO:
            mesh.wait_for(name)
    finally:
        hand.kill()
        hand.wait()


def test_a_hand_started_plugin_rides_out_an_orderly_restart_of_the_broker(mesh: Mesh) -> None:
    body = '@plugin.service("where")\nasync def where() -> int:\n    import os\n    return os.getpid()\n'
    mesh.run()
    hand = subprocess.Popen([sys.executable, "-c", SMALL_PLUGIN.format(name="hand", body=body)], env=mesh.environ)
    try:
        for _ in range(2):
            assert mesh.wait_for("hand")["pid"] == hand.pid
            assert mesh.stop() == 0
            assert mesh.rows()["hand"] == (0, None)
            assert "plugin hand, started by hand, goes on without this broker" in mesh.text()
            assert hand.poll() is None
            mesh.run()
        assert json.loads(mesh.cli("call", "hand.where", "--wait-ready", "10").stdout) == hand.pid
        assert mesh.cli("stop", "hand").stdout == "hand is stopped\n"
        assert hand.wait(10) == 0
    finally:
        hand.kill()
        hand.wait()


def test_a_killed_plugin_is_back_at_once_and_its_callers_are_told(mesh: Mesh) -> None:
    mesh.environ["BROKER_BUS_HEARTBEAT_SECS"] = "30"
    body = '@plugin.service("sleep")\nasync def sleep():\n    import asyncio\n    await asyncio.sleep(60)\n'
    mesh.add_plugin("sleeper", body)
    mesh.run()
    first = mesh.wait_for("sleeper")["pid"]
    call = mesh.start_cli("call", "sleeper.sleep", "null", "--timeout", "30")
    eventually(lambda: mesh.plugin("sleeper")["services"][0]["outstanding"] == 1)
    os.kill(first, signal.SIGKILL)
    _, error = call.communicate(timeout=5)
    assert "lost" in error
    eventually(lambda: (row := mesh.plugin("sleeper"))["state"] == "running" and row["pid"] != first, 5.0)
    assert [each["name"] for each in mesh.status()["plugins"]] == ["sleeper"]
    assert mesh.stop() == 0, mesh.text()
