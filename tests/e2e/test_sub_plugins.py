"""Sub-plugins on a running broker: mounted on their parent, started after it, stopped before it (PLG-9)."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.mesh import SMALL_PLUGIN, Mesh, eventually
from tests.e2e.packages import Maker

SAYS = '@plugin.service("{service}")\nasync def say() -> str:\n    return "{text}"\n'
# In a language without an SDK, a plugin reads its place from the environment, as docs/PROTOCOL.md says.
TELLS = 'import os\n\n@plugin.service("place")\nasync def place() -> str:\n    return os.environ["BROKER_MOUNT"]\n'


def says(service: str, text: str) -> str:
    return SAYS.format(service=service, text=text)


def answer(mesh: Mesh, service: str) -> str:
    """What a service answers, as `broker call` prints it; its error otherwise."""
    called = mesh.cli("call", service)
    return called.stdout.strip() or called.stderr.strip()


@contextmanager
def by_hand(mesh: Mesh, name: str, body: str) -> Iterator[None]:
    """A plugin that the broker has not started, meanwhile."""
    assert mesh.cli("key", "add", name).returncode == 0
    script = mesh.home / f"{name}.py"
    script.write_text(SMALL_PLUGIN.format(name=name, body=body))
    with subprocess.Popen([sys.executable, str(script)], env=mesh.environ) as process:
        try:
            yield
        finally:
            process.terminate()


def place(mesh: Mesh, text: str) -> int:
    """Where a text stands in the log of the broker."""
    found = re.search(text, mesh.text())
    assert found is not None, mesh.text()
    return found.start()


def test_a_sub_plugin_is_called_under_the_name_of_its_parent_and_nowhere_else(mesh: Mesh) -> None:
    mesh.add_plugin("trail", TELLS, "parent: audit\n")
    mesh.add_plugin("audit", says("last", "a login"), "parent: users>=1.0\n")
    mesh.add_plugin("users", says("get", "Ada"))
    mesh.run()
    mesh.wait_for("trail")
    assert answer(mesh, "users.get") == '"Ada"'
    assert answer(mesh, "users.audit.last") == '"a login"'
    assert answer(mesh, "users.audit.trail.place") == '"users.audit.trail"'
    assert "unavailable" in answer(mesh, "audit.last")
    began = [place(mesh, f"plugin {name} 1.0.0 is registered") for name in ("users", "audit", "trail")]
    assert began == sorted(began)
    shown = mesh.cli("status", "audit").stdout
    assert re.search(r"mounts on +users>=1.0, as users.audit\n", shown), shown
    assert re.search(r"sub-plugins +trail\n", shown), shown


def test_the_parent_stops_after_its_sub_plugins_and_takes_them_along(mesh: Mesh) -> None:
    mesh.add_plugin("users", "@plugin.on_cleanup()\nasync def end() -> None: print('users ends')\n")
    mesh.add_plugin("audit", "@plugin.on_cleanup()\nasync def end() -> None: print('audit ends')\n", "parent: users\n")
    mesh.run()
    mesh.wait_for("audit")
    stopped = mesh.cli("stop", "users")
    assert stopped.returncode == 0, stopped.stderr
    assert (mesh.plugin("audit")["state"], mesh.plugin("users")["state"]) == ("stopped", "stopped")
    assert mesh.cli("start", "audit").returncode == 0, "the parent comes up with it"
    assert mesh.plugin("users")["state"] == "running"
    assert stopped.stdout.index("audit") < stopped.stdout.index("users")


def test_a_reload_of_the_parent_takes_its_sub_plugins_along(mesh: Mesh) -> None:
    mesh.add_plugin("users", says("get", "Ada"))
    mesh.add_plugin("audit", says("last", "a login"), "parent: users\n")
    mesh.run()
    before = mesh.wait_for("audit")["pid"]
    reloaded = mesh.cli("reload", "users")
    assert reloaded.stdout == "users: reloaded\naudit: reloaded\n", reloaded.stdout + reloaded.stderr
    assert mesh.plugin("audit")["pid"] != before
    assert answer(mesh, "users.audit.last") == '"a login"'


def test_a_missing_parent_is_told_by_status_and_why_and_found_later(mesh: Mesh) -> None:
    mesh.add_plugin("audit", says("last", "a login"), "parent: users\n")
    mesh.run()
    row = mesh.wait_for("audit", "failed")
    assert row["error"] == "plugin 'audit' mounts on users but no plugin 'users' is installed; install it"
    why = mesh.cli("why", "audit")
    assert why.stdout.startswith(f"dependency: {row['error']}\nnext: "), why.stdout + why.stderr
    mesh.add_plugin("users", says("get", "Ada"))
    assert mesh.cli("start", "audit").returncode == 0
    assert answer(mesh, "users.audit.last") == '"a login"'


def test_a_parent_that_does_not_come_up_is_the_reason_of_its_sub_plugin(mesh: Mesh) -> None:
    mesh.add_plugin("audit", manifest="parent: users\n")
    mesh.add_plugin("users", manifest="requires: [ldap]\n")
    mesh.run()
    row = mesh.wait_for("audit", "failed")
    assert row["error"].startswith("plugin 'audit' mounts on users, which cannot start (audit → users): plugin 'users'")


def test_as_packages_they_are_shown_mounted_and_upgraded(mesh: Mesh, tmp_path: Path) -> None:
    maker = Maker(tmp_path / "maker").trusted_by(mesh)
    mesh.run()
    assert mesh.cli("install", str(maker.file("users", "1.0.0")), "--yes").returncode == 0
    installed = mesh.cli("install", str(maker.file("audit", "1.0.0", manifest="parent: users<2\n")), "--yes")
    assert re.search(r"mounts on +users<2\n", installed.stdout), installed.stdout + installed.stderr
    assert answer(mesh, "users.audit.version") == '"1.0.0"'
    for name in ("audit", "users"):
        version = maker.file(name, "1.1.0", manifest="parent: users<2\n" if name == "audit" else "")
        assert mesh.cli("install", str(version), "--yes").returncode == 0
    assert answer(mesh, "users.audit.version") == '"1.1.0"'
    assert answer(mesh, "users.version") == '"1.1.0"'
    refused = mesh.cli("install", str(maker.file("users", "2.0.0")), "--yes")
    assert "plugin 'audit' mounts on users<2 but users 2.0.0 is installed" in refused.stderr, refused.stderr
    moved = mesh.cli("install", str(maker.file("audit", "1.2.0")), "--yes")
    assert "it mounts on users and would mount on no plugin" in moved.stderr, moved.stderr
    assert answer(mesh, "users.audit.version") == '"1.1.0"'


def test_a_name_that_the_parent_serves_is_not_served_by_its_sub_plugin_too(mesh: Mesh) -> None:
    mesh.add_plugin("users", says("audit.last", "of users"))
    mesh.add_plugin("audit", says("last", "of audit"), "parent: users\n")
    mesh.run()
    row = mesh.wait_for("audit", "failed", within=30.0)
    assert "service 'users.audit.last' is served by plugin 'users' already" in row["error"]
    assert answer(mesh, "users.audit.last") == '"of users"'


def test_one_that_was_started_by_hand_serves_under_its_own_name(mesh: Mesh) -> None:
    mesh.add_plugin("users", says("get", "Ada"))
    mesh.run()
    with by_hand(mesh, "audit", says("last", "by hand")):
        mesh.wait_for("audit")
        eventually(lambda: answer(mesh, "audit.last") == '"by hand"')


def test_a_parent_that_is_changed_in_the_manifest_moves_the_services_with_a_reload(mesh: Mesh) -> None:
    folder = mesh.add_plugin("audit", TELLS, "parent: users\n")
    mesh.add_plugin("users", says("get", "Ada"))
    mesh.add_plugin("core", says("get", "it"))
    mesh.run()
    mesh.wait_for("audit")
    manifest = folder / "plugin.yaml"
    manifest.write_text(manifest.read_text().replace("users", "core"))
    reloaded = mesh.cli("reload-config")
    assert "restarted: new parent" in reloaded.stdout, reloaded.stdout + reloaded.stderr
    assert answer(mesh, "core.audit.place") == '"core.audit"'
    assert "unavailable" in answer(mesh, "users.audit.place")
    assert (mesh.plugin("users")["sub_plugins"], mesh.plugin("core")["sub_plugins"]) == ([], ["audit"])


def test_a_parent_that_is_started_by_hand_brings_its_sub_plugin_up(mesh: Mesh) -> None:
    mesh.add_plugin("audit", TELLS, "parent: users\n")
    mesh.run()
    mesh.wait_for("audit", "failed")
    with by_hand(mesh, "users", says("get", "Ada")):
        mesh.wait_for("users")
        assert mesh.cli("start", "audit").returncode == 0
        assert answer(mesh, "users.audit.place") == '"users.audit"'
