"""A sandboxed plugin in a running broker: it works, it cannot take the operator's key, and status shows both sides."""

from __future__ import annotations

import json
import os
import signal

from broker.supervisor import bubblewrap, landlock
from tests.e2e.mesh import Mesh
from tests.kernel import needs_bubblewrap, needs_landlock

CURIOUS = """
@plugin.service("read")
async def read(path: str) -> str:
    with open(path) as file:
        return file.read()

@plugin.service("save")
async def save() -> str:
    (plugin.data_dir / "own").write_text("kept")
    return (plugin.data_dir / "own").read_text()
"""


@needs_landlock()
def test_a_plugin_in_a_sandbox_works_but_cannot_become_the_operator(mesh: Mesh) -> None:
    (mesh.home / "broker.toml").write_text(
        "[plugin_manager]\nenable_sandbox = true\nmax_memory = 300\n[bus]\nheartbeat_secs = 1\n"
    )
    mesh.add_plugin("curious", CURIOUS, "limits: {open_files: 200, memory: 1G}\n")
    mesh.run("--demo")
    mesh.wait_for("curious")
    for shipped in ("hello", "logger", "users", "notification", "database", "stdout"):
        mesh.wait_for(shipped)
    assert mesh.cli("call", "curious.save").stdout == '"kept"\n'
    refused = mesh.cli("call", "curious.read", json.dumps({"path": str(mesh.home / "keys" / "client.key")}))
    assert (refused.returncode, "Permission denied" in refused.stderr) == (1, True)
    assert mesh.cli("call", "users.get", '{"user_id": "12345"}').returncode == 0
    shown = mesh.plugin("curious")["confinement"]
    assert shown["asked"] == {"sandbox": "best-effort", "memory": 300 << 20, "open_files": 200}
    assert shown["in_force"]["landlock"] == landlock.version()
    # Whether the kernel keeps the memory depends on what was delegated to whoever runs the tests.
    assert not [each for each in shown["in_force"]["missing"] if not each.startswith("memory: not kept by the kernel")]


@needs_bubblewrap
def test_a_plugin_in_bubblewrap_works_is_told_by_its_own_process_and_ends_in_order(mesh: Mesh) -> None:
    mesh.add_plugin("curious", CURIOUS, "sandbox: {mode: required, bubblewrap: true}\n")
    mesh.run()
    row = mesh.wait_for("curious")
    assert mesh.cli("call", "curious.save").stdout == '"kept"\n'
    refused = mesh.cli("call", "curious.read", json.dumps({"path": str(mesh.home / "keys" / "client.key")}))
    assert (refused.returncode, "No such file or directory" in refused.stderr) == (1, True)
    assert f"in force: no new privs True, capabilities none, bubblewrap {bubblewrap.find()}" in " ".join(
        mesh.cli("status", "curious").stdout.split()
    )
    # The process that was started waits; the one that registered is below it.
    sessions = json.loads(mesh.cli("call", "$broker.sessions").stdout)
    (inside,) = [each["pid"] for each in sessions if each["name"] == "curious"]
    assert inside != row["pid"]
    os.kill(inside, signal.SIGSTOP)
    frozen = mesh.cli("why", "curious").stdout
    os.kill(inside, signal.SIGCONT)
    assert f"kill -CONT {inside}" in frozen
    assert mesh.cli("reload", "curious").stdout == "curious: reloaded\n"
    assert mesh.plugin("curious")["last_exit"] == "exited with status 0"
    assert mesh.stop() == 0


def test_a_misspelt_limit_is_told_with_its_line(mesh: Mesh) -> None:
    mesh.add_plugin("curious", manifest="limits:\n  memroy: 1G\nsandbox: {mode: off}\n")
    checked = mesh.cli("check")
    assert "plugin.yaml:4: limits.memroy: is not a field; did you mean 'memory'?" in checked.stderr
    assert "plugin.yaml:5: sandbox.mode: is False; expects best-effort or required" in checked.stderr
