"""`broker why` on failures that were arranged on a running broker: one answer each, and it is the right one (OPS-6)."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, eventually

SERVES = '@plugin.service("get")\nasync def get(): return 1\n'
BLOCKED = 'import time\n@plugin.service("get")\nasync def get(): time.sleep(60)\n'
HANGS = 'import asyncio\n@plugin.service("get")\nasync def get(): await asyncio.sleep(600)\n'
UNWELL = "@plugin.on_health()\nasync def health(): return {'ok': False, 'reason': 'no database'}\n"
FAILS = "@plugin.on_start()\nasync def start(): raise OSError('no port is free')\n"
CRASHES = (
    "import asyncio, os\n@plugin.on_start()\n"
    "async def start(): asyncio.get_running_loop().call_later(0.05, os._exit, 3)\n"
)


@pytest.fixture
def broker(mesh: Mesh) -> Mesh:
    """A broker with quick heartbeats, so that a test need not wait for a minute."""
    (mesh.home / "broker.toml").write_text("[bus]\nheartbeat_secs = 0.3\n")
    return mesh


def why(mesh: Mesh, name: str, cause: str) -> str:
    """Asks until the cause is this one; returns what was printed."""
    said: list[str] = []

    def answered() -> bool:
        answer = mesh.cli("why", name)
        said.append(answer.stdout + answer.stderr)
        assert answer.returncode == (0 if answer.stdout.startswith("reachable") else 1)
        return answer.stdout.startswith(f"{cause}: ")

    try:
        eventually(answered, 20)
    except AssertionError:
        pytest.fail(f"{name} should be {cause}, but was told: {said[-1]}\n{mesh.text()[-2000:]}")
    assert "\nnext: " in said[-1]
    return said[-1]


@contextmanager
def waiting_for(mesh: Mesh, service: str) -> Iterator[None]:
    """Somebody who waits for the answer of a service meanwhile."""
    with mesh.start_cli("call", service, "--timeout", "600") as caller:
        try:
            yield
        finally:
            caller.kill()


@contextmanager
def by_hand(mesh: Mesh, folder: Path, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [sys.executable, str(folder / "main.py")], env={**mesh.environ, **environ}, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_no_broker_runs(mesh: Mesh) -> None:
    mesh.run()
    mesh.stop()
    answer = mesh.cli("why", "hello")
    assert answer.returncode == 69
    assert "no broker listens at" in answer.stderr
    assert f"Start one with: broker run --home {mesh.home}" in answer.stderr


def test_what_keeps_a_plugin_from_coming_up(broker: Mesh) -> None:
    quick = "timeouts: {register: 2, start: 2}\n"
    broker.add_plugin("dark", manifest="enabled: false\n")
    broker.add_plugin("typo", manifest="requiers: [dark]\n")
    broker.add_plugin("lonely", manifest="requires: [ghost]\n")
    broker.add_plugin("blocked", manifest="requires: [lonely]\n")
    broker.add_plugin("portless", FAILS, quick)
    broker.add_plugin("crashing", CRASHES)
    broker.add_plugin("once", CRASHES, "restart: never\n")
    broker.add_plugin("mute", "import time; time.sleep(60)\n", "timeouts: {register: 30}\n")
    broker.add_plugin("well", SERVES)
    broker.run()
    assert "`broker start mute`" not in why(broker, "mute", "starting")
    assert "again in" in why(broker, "crashing", "backoff")
    assert "put its folder into" in why(broker, "ghost", "never_started")
    assert "did you mean 'well'?" in why(broker, "wel", "never_started")
    assert "`broker enable dark`" in why(broker, "dark", "disabled")
    assert "requiers: is not a field; did you mean 'requires'?" in why(broker, "typo", "bad_manifest")
    assert "no plugin 'ghost' is installed" in why(broker, "lonely", "dependency")
    assert "`broker why lonely`" in why(broker, "blocked", "dependency")
    assert "no port is free" in why(broker, "portless", "start_failed")
    assert "exited with status 3" in why(broker, "once", "ended")
    assert "serves well.get" in why(broker, "well", "reachable")
    broker.cli("stop", "well")
    assert "`broker start well`" in why(broker, "well", "stopped")


def test_one_that_was_stopped_with_another_finds_in_the_audit_log_who_did_that(broker: Mesh) -> None:
    broker.add_plugin("base", SERVES)
    broker.add_plugin("user", SERVES, "requires: [base]\n")
    broker.run()
    broker.wait_for("user")
    assert broker.cli("stop", "base").returncode == 0
    answer = why(broker, "user", "stopped")
    assert "plugin 'user' was stopped with base, which it needs" in answer
    assert "`broker audit --plugin user` says who stopped it" in answer

    def audited() -> bool:
        return "stop user: done (with base, which it needs)" in broker.cli("audit", "--plugin", "user").stdout

    eventually(audited, 10, "the audit log has it")


def test_what_is_wrong_with_a_plugin_that_runs(broker: Mesh) -> None:
    for name, body in {
        "loop": BLOCKED,
        "handler": HANGS,
        "frozen": SERVES,
        "unwell": SERVES + UNWELL,
        "idle": "",
    }.items():
        broker.add_plugin(name, body)
    broker.add_plugin("parked", SERVES)
    broker.run()
    for name in ("loop", "handler", "frozen", "unwell", "idle", "parked"):
        broker.wait_for(name)
    with waiting_for(broker, "loop.get"), waiting_for(broker, "handler.get"):
        look_at_those_that_run(broker)


def look_at_those_that_run(broker: Mesh) -> None:
    held = broker.plugin("frozen")["pid"]
    os.kill(held, signal.SIGSTOP)
    assert broker.cli("drain", "parked").returncode == 0
    assert "says that it is not well: no database" in why(broker, "unwell", "not_ready")
    assert "serves nothing and listens to nothing" in why(broker, "idle", "serves_nothing")
    assert "`broker drain parked --undo`" in why(broker, "parked", "drained")
    assert f"kill -CONT {held}" in why(broker, "frozen", "frozen")
    assert "its event loop has said nothing for" in why(broker, "loop", "loop_blocked")
    stuck = why(broker, "handler", "stuck")
    assert "is stuck in handler handler.get for" in stuck
    assert "its loop still answers" in stuck
    assert "stuck in handler handler.get for" in broker.cli("status").stdout
    os.kill(held, signal.SIGCONT)
    assert broker.cli("drain", "parked", "--undo").returncode == 0
    assert "serves frozen.get" in why(broker, "frozen", "reachable")
    assert "serves parked.get" in why(broker, "parked", "reachable")


def test_who_came_by_hand_and_was_refused_or_is_gone(broker: Mesh) -> None:
    folder = broker.add_plugin("stranger", SERVES)
    elsewhere = folder.rename(broker.home.parent / "stranger")
    double = broker.add_plugin("double", SERVES)
    broker.run()
    broker.wait_for("double")
    with by_hand(broker, elsewhere, BROKER_KEY="not-a-key"):
        assert "`broker key add stranger`" in why(broker, "stranger", "wrong_key")
    with by_hand(broker, elsewhere) as process:
        assert "serves stranger.get" in why(broker, "stranger", "reachable")
        process.kill()
        assert "was started by hand, was registered, and is gone" in why(broker, "stranger", "lost")
    with by_hand(broker, double):
        assert "give the second one an instance name" in why(broker, "double", "duplicate_name")


def test_what_was_denied_or_quarantined(broker: Mesh) -> None:
    nosy = "@plugin.on_start()\nasync def start():\n    try:\n        await plugin.call('$broker.status')\n"
    broker.add_plugin("nosy", SERVES + nosy + "    except Exception: pass\n")
    folder = broker.add_plugin("changed", SERVES, "timeouts: {min_uptime: 0.2}\n")
    broker.run()
    assert "needs the operator key" in why(broker, "nosy", "denied")
    before = broker.wait_for("changed")["pid"]
    (folder / "main.py").write_text("raise SystemExit('no such module')")
    assert broker.cli("upgrade", "changed").returncode == 1
    assert "serves changed.get" in why(broker, "changed", "reachable")
    os.kill(before, signal.SIGKILL)
    answer = why(broker, "changed", "quarantined")
    assert "no such module" not in answer.splitlines()[-1]
    assert "`broker start changed --force`" in answer


def test_the_audit_log_tells_who_did_what(broker: Mesh) -> None:
    broker.add_plugin("well", SERVES)
    broker.run()
    broker.wait_for("well")
    broker.cli("reload", "well")
    broker.cli("disable", "well")
    broker.cli("start", "well")

    def told() -> bool:
        lines = broker.cli("audit", "--plugin", "well").stdout.splitlines()
        actions = [line.partition("): ")[2] for line in lines]
        wanted = ["reload well: done", "disable well: done", "start well: refused (plugin 'well' is disabled: "]
        return len(actions) == 3 and all(map(str.startswith, actions, wanted))

    eventually(told, 10, "the audit log has all three")
    assert broker.cli("audit", "-n", "1").stdout.count("\n") == 1
