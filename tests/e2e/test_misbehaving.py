"""Plugins that misbehave in a running broker: each ends in the right state for the right reason and leaves nothing."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.mesh import Mesh, eventually

PLUGINS = Path(__file__).parents[1] / "plugins"
ORDERS = {
    "never_registers": "timeouts: {register: 2}\n",
    "changes_group": "timeouts: {register: 2}\n",
    "floods_stdout": "timeouts: {register: 5}\n",
    "ignores_sigterm": "timeouts: {register: 100, stop: 1, cleanup: 0.5}\n",
    "blocks_loop": "timeouts: {stop: 1.5, cleanup: 0.5}\n",
    "crashes_after_a_second": "restart: never\n",
    "opens_files": "limits: {open_files: 256}\n",
    "leaks_memory": "limits: {memory: 64M, over: report}\n",
    "burns_cpu": "limits: {cpu: 0.1, over: report}\n",
    "closes_stdout": "limits: {memory: 1G}\n",
    "spawns_processes": "limits: {processes: 40, over: stop}\n",
}


@pytest.fixture(scope="module")
def broker() -> Iterator[Mesh]:
    """A broker with all of them at once; in the end it stops in order and not one of their processes lives."""
    with tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True) as folder:
        mesh = Mesh(Path(folder) / "home")
        for place in ("plugins", "config"):
            (mesh.home / place).mkdir(parents=True)
        mesh.home.chmod(0o700)
        (mesh.home / "broker.toml").write_text("[bus]\nheartbeat_secs = 0.3\n")
        for plugin in PLUGINS.iterdir():
            (mesh.home / "plugins" / plugin.name).symlink_to(plugin)
        for name, orders in ORDERS.items():
            (mesh.home / "config" / f"{name}.yaml").write_text(orders)
        try:
            mesh.run()
            yield mesh
            assert mesh.stop() == 0, mesh.text()[-3000:]
            assert processes(mesh) == []
        finally:
            mesh.close()


def processes(mesh: Mesh, name: str = "") -> list[int]:
    """Those that have the environment of a plugin of this broker, wherever in the tree of processes they are."""
    found = []
    for each in psutil.process_iter():
        try:
            environ = each.environ()
        except psutil.Error:
            continue
        plugin = environ.get("BROKER_PLUGIN", "")
        if environ.get("BROKER_HOME") == str(mesh.home) and plugin and name in ("", plugin):
            found.append(each.pid)
    return found


def told(mesh: Mesh, name: str, cause: str) -> str:
    """What `broker why` says, once its cause is this one."""
    said: list[str] = []

    def answered() -> bool:
        said.append(mesh.cli("why", name).stdout)
        return said[-1].startswith(f"{cause}: ")

    try:
        eventually(answered, 40)
    except AssertionError:
        pytest.fail(f"{name} should be {cause}, but was told: {said[-1]}\n{mesh.text()[-3000:]}")
    return said[-1]


def shown(mesh: Mesh, name: str) -> str:
    """What `broker status` shows of it, on one line."""
    return " ".join(mesh.cli("status", name).stdout.split())


def stopped(mesh: Mesh, name: str) -> str:
    """Stops it and returns what the status says then; nothing of it is left."""
    mesh.cli("stop", name)
    mesh.wait_for(name, "stopped")
    assert processes(mesh, name) == []
    return shown(mesh, name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("never_registers", "in 3 attempts: register: not done within 2 s"),
        ("exits_at_once", "in 3 attempts: register: the process exited with status 1 after"),
        ("returns_at_once", "in 3 attempts: register: the process exited with status 0 after"),
        ("cannot_run", "did not start: register: cannot run ./no-such-program: No such file or directory"),
        ("opens_files", "in 3 attempts: start: failed: OSError: [Errno 24] Too many open files: '/dev/null'"),
        ("double_forks", "1 of the processes it left behind had to be killed"),
        ("leaves_children", "2 of the processes it left behind had to be killed"),
        ("changes_group", "in 3 attempts: register: not done within 2 s"),
        ("floods_stdout", "in 3 attempts: register: not done within 5 s"),
    ],
)
def test_one_that_does_not_come_up_has_failed_and_nothing_of_it_is_left(broker: Mesh, name: str, reason: str) -> None:
    assert reason in told(broker, name, "start_failed")
    row = broker.plugin(name)
    assert (row["state"], row["registration"], row["pid"]) == ("failed", "failed", None)
    assert processes(broker, name) == []
    assert reason in shown(broker, name)


def test_the_last_words_of_one_that_crashes_at_once_are_shown(broker: Mesh) -> None:
    assert "RuntimeError: the flux capacitor is missing" in told(broker, "exits_at_once", "start_failed")


def test_a_flood_is_cut_off_and_counted(broker: Mesh) -> None:
    told(broker, "floods_stdout", "start_failed")
    assert broker.plugin("floods_stdout")["log_lines_dropped"] > 1000
    assert "lines dropped: it writes too fast" in shown(broker, "floods_stdout")


def test_one_that_registers_twice_goes_on_and_its_second_process_is_named(broker: Mesh) -> None:
    said = told(broker, "registers_twice", "duplicate_name")
    row = broker.plugin("registers_twice")
    second = int(re.findall(r"^duplicate_name: process (\d+) ", said)[0])
    assert (row["state"], second != row["pid"]) == ("running", True)
    assert f"is registered already by process {row['pid']}" in said
    assert broker.cli("call", "registers_twice.whoami").stdout == f"{row['pid']}\n"
    assert "last end: exited with status 0" in stopped(broker, "registers_twice")


def test_one_that_crashes_after_a_second_has_ended_with_its_status(broker: Mesh) -> None:
    assert "exited with status 3 after" in told(broker, "crashes_after_a_second", "ended")
    assert broker.plugin("crashes_after_a_second")["state"] == "failed"
    assert processes(broker, "crashes_after_a_second") == []


def test_one_that_crashes_in_its_cleanup_is_stopped_and_that_is_counted(broker: Mesh) -> None:
    broker.wait_for("crashes_in_cleanup")
    before = broker.status()["broker"]["cleanups"]["failed"]
    assert "last end: exited with status 4" in stopped(broker, "crashes_in_cleanup")
    assert broker.status()["broker"]["cleanups"]["failed"] == before + 1
    assert "cleanup failed for crashes_in_cleanup: cleanup: " in broker.text()


def test_one_that_ignores_sigterm_is_killed(broker: Mesh) -> None:
    broker.wait_for("ignores_sigterm", "registering")
    eventually(lambda: "deaf" in broker.cli("logs", "ignores_sigterm").stdout)
    assert "was ended by SIGKILL: it did not end within 1.0 s of SIGTERM" in stopped(broker, "ignores_sigterm")
    assert "was stopped by order" in told(broker, "ignores_sigterm", "stopped")


def test_one_that_blocks_its_loop_is_told_apart_from_a_dead_one_and_can_be_stopped(broker: Mesh) -> None:
    assert "its event loop has said nothing for" in told(broker, "blocks_loop", "loop_blocked")
    assert broker.plugin("blocks_loop")["state"] == "running"
    assert "was ended by SIGKILL" in stopped(broker, "blocks_loop")


def test_a_limit_is_kept_by_the_kernel_or_it_is_said_why_it_is_only_watched(broker: Mesh) -> None:
    broker.wait_for("closes_stdout")
    confinement = broker.plugin("closes_stdout")["confinement"]
    in_force = confinement["in_force"]
    assert confinement["asked"]["memory"] == 1 << 30
    if in_force.get("cgroup"):
        assert in_force["memory"] == 1 << 30
    else:
        assert in_force["watched"] == "memory"
        assert "memory: not kept by the kernel, only watched: cgroup v2: " in shown(broker, "closes_stdout")


def test_one_that_closes_its_output_goes_on(broker: Mesh) -> None:
    told(broker, "closes_stdout", "reachable")
    assert broker.cli("call", "closes_stdout.speak").returncode == 0
    assert "last end: exited with status 0" in stopped(broker, "closes_stdout")


def test_one_that_leaks_memory_is_reported_goes_on_and_is_calm_again_later(broker: Mesh) -> None:
    said = told(broker, "leaks_memory", "over_limit")
    assert re.search(r"over its limits: it uses \d+ MiB of memory, its limit is 64 MiB", said)
    assert "note over its limits: uses " in shown(broker, "leaks_memory")
    assert "exceeded its limit of memory 1 time" in shown(broker, "leaks_memory")
    assert "over limit leaks_memory: report (memory: it uses " in broker.cli("audit", "--plugin", "leaks_memory").stdout
    assert broker.cli("call", "leaks_memory.free").returncode == 0
    eventually(lambda: not broker.plugin("leaks_memory")["over_limits"], 20)
    told(broker, "leaks_memory", "reachable")
    assert broker.plugin("leaks_memory")["exceeded"] == {"memory": 1}


def test_one_that_burns_cpu_is_found_by_the_mean_of_ten_seconds(broker: Mesh) -> None:
    assert "cores over the last 1" in told(broker, "burns_cpu", "over_limit")
    assert "of CPU, " in shown(broker, "burns_cpu")
    # Its own thread may keep it from finishing its cleanup in time.
    assert re.search("last end: (exited with status 0|was ended by SIGTERM)", stopped(broker, "burns_cpu"))


def test_one_with_too_many_processes_is_ended_with_all_of_them_those_that_got_away_too(broker: Mesh) -> None:
    said = told(broker, "spawns_processes", "over_limit")
    assert re.search(r"it has [456]\d processes and threads, its limit is 40 \(over: stop\)", said)
    row = broker.plugin("spawns_processes")
    assert (row["state"], row["desired"], row["pid"]) == ("failed", "running", None)
    assert processes(broker, "spawns_processes") == []
    assert f"last end: {row['last_exit']}" in shown(broker, "spawns_processes")
