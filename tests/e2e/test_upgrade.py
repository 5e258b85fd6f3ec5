"""Upgrades while the plugin is in use: nobody who calls it or publishes to it notices (PLG-8)."""

import json
from pathlib import Path

from tests.e2e.mesh import SMALL_PLUGIN, Mesh
from tools.upgrading import trial
from tools.upgrading.versions import TROUBLES

VERSIONED = '@plugin.service("version")\nasync def version():\n    return "{version}"\n'


def version(folder: Path, number: str, body: str = "", further: str = "") -> Path:
    """A folder with this version of the plugin calc."""
    folder.mkdir()
    manifest = f'name: calc\nversion: "{number}"\ntimeouts: {{min_uptime: 0.2}}\n{further}'
    folder.joinpath("plugin.yaml").write_text(manifest)
    program = SMALL_PLUGIN.format(name="calc", body=VERSIONED.format(version=number) + body)
    folder.joinpath("main.py").write_text(program)
    return folder


def test_nobody_notices_upgrades_that_work_and_upgrades_that_do_not(mesh: Mesh) -> None:
    verdict = trial.run(mesh.home.parent, good=3, bad=len(TROUBLES), rate=400, progress=lambda text: None)
    assert verdict.clean, verdict
    assert (verdict.upgraded, verdict.rolled_back, verdict.versions) == (3, len(TROUBLES), 4)
    assert verdict.begun > 400


def test_the_command_line_upgrades_tells_why_not_and_shows_what_is_quarantined(mesh: Mesh) -> None:
    (mesh.home / "plugins").mkdir()
    version(mesh.home / "plugins" / "calc", "1.0")
    mesh.run()
    mesh.wait_for("calc")
    good = version(mesh.home.parent / "good", "2.0")
    done = mesh.cli("upgrade", "calc", "--from", str(good))
    assert (done.returncode, done.stdout) == (0, "calc: upgraded from 1.0 to 2.0\n"), done.stderr
    bad = version(mesh.home.parent / "bad", "3.0", "raise SystemExit('no such module')")
    refused = mesh.cli("upgrade", "calc", "--from", str(bad))
    assert refused.returncode == 1
    assert "plugin 'calc' was not upgraded to 3.0, 2.0 goes on: " in refused.stderr
    assert "no such module" in refused.stderr
    again = mesh.cli("upgrade", "calc", "--from", str(bad))
    assert "version 3.0 (" in again.stderr
    assert "is quarantined since" in again.stderr
    assert json.loads(mesh.cli("call", "calc.version").stdout) == "2.0"
    (entry,) = mesh.plugin("calc")["quarantine"]
    assert entry["version"] == "3.0"
    assert "no such module" in entry["reason"]
    assert mesh.stop() == 0, mesh.text()
    assert "Traceback" not in mesh.text()


def test_an_upgrade_holds_and_the_quarantine_too_after_the_broker_was_killed(mesh: Mesh) -> None:
    (mesh.home / "plugins").mkdir()
    version(mesh.home / "plugins" / "calc", "1.0")
    mesh.run()
    mesh.wait_for("calc")
    assert mesh.cli("upgrade", "calc", "--from", str(version(mesh.home.parent / "good", "2.0"))).returncode == 0
    bad = version(mesh.home.parent / "bad", "3.0", "raise SystemExit('no')")
    assert mesh.cli("upgrade", "calc", "--from", str(bad)).returncode == 1
    assert mesh.process is not None
    mesh.process.kill()
    mesh.process.wait()
    mesh.run()
    assert mesh.wait_for("calc")["version"] == "2.0"
    assert "is quarantined since" in mesh.cli("upgrade", "calc", "--from", str(bad)).stderr


def test_a_new_version_may_do_what_it_asks_for_itself_and_not_what_the_old_one_did(mesh: Mesh) -> None:
    publishes = '@plugin.service("do")\nasync def do(subject: str):\n    await plugin.publish(subject, {})\n'
    (mesh.home / "plugins").mkdir()
    version(mesh.home / "plugins" / "calc", "1.0", publishes, "permissions: {event_bus: {publish: [a.b]}}\n")
    mesh.run()
    mesh.wait_for("calc")
    assert mesh.cli("call", "calc.do", '"a.b"').returncode == 0
    second = version(mesh.home.parent / "good", "2.0", publishes, "permissions: {event_bus: {publish: [a.c]}}\n")
    assert mesh.cli("upgrade", "calc", "--from", str(second)).returncode == 0
    assert mesh.cli("call", "calc.do", '"a.c"').returncode == 0
    denied = mesh.cli("call", "calc.do", '"a.b"')
    assert "'calc' lacks the permission 'event_bus: publish a.b'" in denied.stderr
    third = version(
        mesh.home.parent / "bad", "3.0", '@plugin.subscribe("a.b")\nasync def on(e):\n    pass\n', "permissions: {}\n"
    )
    refused = mesh.cli("upgrade", "calc", "--from", str(third))
    assert "lacks the permission 'event_bus: subscribe a.b'" in refused.stderr
    assert mesh.plugin("calc")["version"] == "2.0"
