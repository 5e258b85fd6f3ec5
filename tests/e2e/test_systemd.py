"""A broker under a service manager: what that hears on a real notify socket, and how the service is installed."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, eventually

WATCHED = "[shutdown.watchdog]\nenabled = true\ntimeout_secs = 1\ninterval_secs = 0.5\n"


class Manager:
    """The end of a notify socket that systemd has."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(15)
        self.heard: list[list[str]] = []

    def hear(self, line: str) -> list[str]:
        """The next message with this line; what comes before it is kept in `heard`, too."""
        while True:
            message = self._socket.recv(65536).decode().split("\n")
            self.heard.append(message)
            if line in message:
                return message

    def rest(self) -> list[list[str]]:
        """What a broker that has ended had still to say."""
        before = len(self.heard)
        while not self.hears_nothing(0.1):
            pass
        return self.heard[before:]

    def hears_nothing(self, within: float) -> bool:
        """Whether no message comes for so many seconds."""
        self._socket.settimeout(within)
        try:
            self.heard.append(self._socket.recv(65536).decode().split("\n"))
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(15)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[Manager]:
    address = f"@plugmesh-{os.getpid()}" if request.param == "abstract" else str(mesh.home / "notify")
    mesh.environ["NOTIFY_SOCKET"] = address
    made = Manager(address)
    try:
        yield made
    finally:
        made.close()


def test_it_is_ready_when_the_plugins_run_and_tells_of_reload_and_stop(mesh: Mesh, manager: Manager) -> None:
    mesh.add_plugin("small")
    mesh.add_plugin("lonely", manifest='requires: ["ghost>=1"]\n')
    process = mesh.spawn()
    assert "STATUS=1 plugin running, 1 failed (lonely)" in manager.hear("READY=1")
    assert mesh.plugin("small")["state"] == "running"
    process.send_signal(signal.SIGHUP)
    assert manager.hear("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
    manager.hear("READY=1")
    assert mesh.stop() == 0
    message = manager.hear("STOPPING=1")
    # The unit may be older than the settings: 30 s, 10 s until the guard ends it, 5 s to spare.
    assert "EXTEND_TIMEOUT_USEC=45000000" in message
    assert all(message[0].startswith("STATUS=stopping") for message in manager.rest())


def test_a_reload_that_is_refused_ends_as_well_and_says_why(mesh: Mesh, manager: Manager) -> None:
    mesh.run()
    manager.hear("READY=1")
    mesh.home.joinpath("broker.toml").write_text("[bus]\nheartbeat_secs = -1\n")
    assert mesh.cli("reload-config").returncode == 1
    manager.hear("RELOADING=1")
    _, text = manager.hear("READY=1")
    assert "configuration refused" in text
    assert "bus.heartbeat_secs" in text


def test_a_plugin_that_does_not_come_up_does_not_keep_the_broker_from_working(mesh: Mesh, manager: Manager) -> None:
    mesh.add_plugin("slow", "@plugin.on_start()\nasync def start():\n    import asyncio\n    await asyncio.sleep(60)\n")
    mesh.run()
    assert mesh.cli("pub", "a", "1").returncode == 0
    assert not any("READY=1" in message for message in manager.heard)


@pytest.mark.parametrize(("what", "words"), [("loop", "the loop is blocked"), ("core", "the core is stalled")])
def test_the_watchdog_is_fed_until_loop_or_core_hangs(mesh: Mesh, manager: Manager, what: str, words: str) -> None:
    mesh.home.joinpath("broker.toml").write_text(WATCHED)
    mesh.add_plugin("small", '@plugin.service("ready")\nasync def ready():\n    return True\n')
    with mesh.log.open("ab") as log:
        command = [sys.executable, "-m", "tests.e2e.blocked_broker", str(mesh.home), what]
        mesh.process = subprocess.Popen(command, env=mesh.environ, stdout=log, stderr=log)
    manager.hear("WATCHDOG_USEC=1000000")
    manager.hear("WATCHDOG=1")
    eventually(lambda: words in mesh.text())
    eventually(lambda: manager.hears_nothing(1.5), what="the watchdog is not fed any more")
    if what == "core":
        eventually(lambda: "makes no progress, so the watchdog is not fed" in mesh.text())
    # What systemd does then; the log says where every thread was.
    assert mesh.stop(signal.SIGABRT) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in mesh.text()
    assert ("in block" in mesh.text()) == (what == "loop")


def test_a_unit_that_asks_for_a_watchdog_is_obeyed_and_plugins_know_nothing_of_it(mesh: Mesh, manager: Manager) -> None:
    mesh.environ["WATCHDOG_USEC"] = "600000"
    body = 'import os\n@plugin.service("environ")\nasync def environ():\n    return dict(os.environ)\n'
    mesh.add_plugin("nosy", body)
    mesh.run()
    mesh.wait_for("nosy")
    for _ in range(3):
        manager.hear("WATCHDOG=1")
    seen = mesh.cli("call", "nosy.environ").stdout
    assert "PATH" in seen
    assert "NOTIFY_SOCKET" not in seen
    assert "WATCHDOG" not in seen


def test_a_watchdog_that_nobody_listens_to_is_told_of(mesh: Mesh) -> None:
    mesh.home.joinpath("broker.toml").write_text(WATCHED)
    mesh.run()
    eventually(lambda: "shutdown.watchdog is enabled, but nobody watches" in mesh.text())


@pytest.fixture
def account(mesh: Mesh, tmp_path: Path) -> Path:
    """An account with nothing in it; returns where its units are kept."""
    mesh.environ |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    if not any((Path(folder) / "systemctl").exists() for folder in os.get_exec_path(mesh.environ)):
        pytest.skip("systemctl is not installed")
    return tmp_path / "config" / "systemd" / "user"


def test_the_service_of_a_user_is_installed_and_taken_away(mesh: Mesh, account: Path) -> None:
    done = mesh.cli("systemd", "install", "--user", "--name", "pm-test")
    assert done.returncode == 0, done.stderr
    unit = account / "pm-test.service"
    assert unit.read_text() == mesh.cli("systemd", "show", "--user", "--name", "pm-test").stdout
    assert (account / "default.target.wants" / "pm-test.service").is_symlink()
    assert "is as it should be" in mesh.cli("systemd", "install", "--user", "--name", "pm-test").stdout
    done = mesh.cli("systemd", "uninstall", "--user", "--name", "pm-test")
    assert done.returncode == 0, done.stderr
    assert not unit.exists()
    assert not (account / "default.target.wants" / "pm-test.service").is_symlink()
    assert "nothing to uninstall" in mesh.cli("systemd", "uninstall", "--user", "--name", "pm-test").stderr


def test_a_unit_that_was_edited_is_not_lost(mesh: Mesh, account: Path) -> None:
    install = ("systemd", "install", "--user", "--name", "pm-test")
    assert mesh.cli(*install).returncode == 0
    unit = account / "pm-test.service"
    edited = unit.read_text() + "Environment=A=1\n"
    unit.write_text(edited)
    for command in (install, ("systemd", "uninstall", "--user", "--name", "pm-test")):
        refused = mesh.cli(*command)
        assert refused.returncode == 1
        assert "was edited" in refused.stderr
        assert unit.read_text() == edited
    assert mesh.cli(*install, "--force").returncode == 0
    assert unit.with_suffix(".service.old").read_text() == edited
    assert "Environment=A=1" not in unit.read_text()


def test_without_systemctl_nothing_is_written(mesh: Mesh, account: Path) -> None:
    mesh.environ["PATH"] = "/nonexistent"
    refused = mesh.cli("systemd", "install", "--user")
    assert refused.returncode == 1
    assert "there is no systemctl here: print the unit with `broker systemd show` instead" in refused.stderr
    assert not account.exists()
    assert "ExecStart=" in mesh.cli("systemd", "show", "--user").stdout


def test_the_unit_follows_the_settings(mesh: Mesh) -> None:
    mesh.home.joinpath("broker.toml").write_text("[shutdown]\ntimeout_secs = 90\n" + WATCHED)
    text = mesh.cli("systemd", "show").stdout
    assert "TimeoutStopSec=110\n" in text
    assert "WatchdogSec=1\n" in text
