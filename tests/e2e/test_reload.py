"""The configuration of a running broker is read anew: applied at once, kept for a restart, or refused as a whole."""

import json
import re
import signal

from tests.e2e.mesh import Mesh, eventually


def configure(mesh: Mesh, text: str) -> None:
    (mesh.home / "broker.toml").write_text(text)


def hang_up(mesh: Mesh) -> None:
    assert mesh.process is not None
    mesh.process.send_signal(signal.SIGHUP)


def says(mesh: Mesh, text: str) -> None:
    eventually(lambda: text in mesh.text(), 15, f"{text!r} in {mesh.text()[-3000:]}")


def test_sighup_applies_what_it_can_and_reports_each_item(mesh: Mesh) -> None:
    configure(mesh, '[broker]\nlog_level = "info"\n')
    mesh.add_plugin("small")
    mesh.run()
    before = mesh.wait_for("small")["pid"]
    configure(mesh, '[broker]\nlog_format = "json"\n[bus]\nheartbeat_secs = 9\n[shutdown]\ntimeout_secs = 20\n')
    mesh.add_plugin("another")
    hang_up(mesh)
    says(mesh, " items unchanged")
    said = [json.loads(line)["message"] for line in mesh.text().splitlines() if '"broker.config"' in line]
    assert said[:-1] == [
        "broker.log_format: applied (text → json)",
        "bus.heartbeat_secs: needs restart (5.0 → 9.0)",
        "shutdown.timeout_secs: applied (30.0 → 20.0)",
        "plugin another: applied (started: it is new)",
    ]
    assert re.fullmatch(r"configuration reloaded, \d+ items unchanged", said[-1])
    assert mesh.plugin("small")["pid"] == before
    assert mesh.plugin("another")["state"] == "running"
    assert mesh.stop() == 0, mesh.text()
    assert "stop plugins (2 of 5), within 17.0 s" in mesh.text()


def test_with_any_problem_nothing_is_applied_and_all_of_them_are_told(mesh: Mesh) -> None:
    mesh.run()
    configure(mesh, '[broker]\nlog_format = "json"\nlog_level = "loud"\n[shutdown]\ntimeout_sec = 7\n')
    mesh.add_plugin("new")
    hang_up(mesh)
    says(mesh, "broker.toml:3: broker.log_level: ")
    says(mesh, "broker.toml:5: shutdown.timeout_sec: unknown setting; did you mean shutdown.timeout_secs?")
    assert mesh.text().count("configuration not reloaded, the old one is kept") == 2
    assert "applied" not in mesh.text()
    assert mesh.plugin("new") == {}
    refused = mesh.cli("reload-config")
    assert refused.returncode == 1
    assert "broker.log_level" in refused.stderr
    assert "the broker keeps the one it has" in refused.stderr
    assert mesh.stop() == 0


def test_the_command_line_prints_the_same_report(mesh: Mesh) -> None:
    mesh.add_plugin("small")
    mesh.run()
    mesh.wait_for("small")
    (mesh.home / "config" / "small.yaml").write_text("config: {colour: blue}\n")
    configure(mesh, '[broker]\nnode = "elsewhere"\n[plugin_manager]\nmax_concurrency = 3\n')
    answer = mesh.cli("reload-config")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert "plugin_manager.max_concurrency: applied (8 → 3)" in lines
    assert "plugin small: applied (restarted: new config)" in lines
    assert any(line.startswith("broker.node: needs restart (") for line in lines)
    again = json.loads(mesh.cli("reload-config", "--json").stdout)
    assert {item["name"]: item["result"] for item in again["items"] if item["result"] != "unchanged"} == {
        "broker.node": "needs restart"
    }


def test_a_new_database_password_is_noticed_and_not_shown(mesh: Mesh) -> None:
    configure(mesh, '[database]\nurl = "mysql+pymysql://me:oldsecret@127.0.0.1:1/none"\n')
    mesh.run()
    configure(mesh, '[database]\nurl = "mysql+pymysql://me:newsecret@127.0.0.1:1/none"\n')
    answer = mesh.cli("reload-config")
    assert "database.url: needs restart (mysql+pymysql://me:***@" in answer.stdout
    assert "secret" not in answer.stdout + mesh.text()


def test_a_plugin_that_does_not_come_up_again_makes_the_command_fail(mesh: Mesh) -> None:
    body = "@plugin.on_initialize()\nasync def check(config):\n    assert 'bad' not in config, 'bad is set'\n"
    mesh.add_plugin("small", body)
    mesh.run()
    mesh.wait_for("small")
    (mesh.home / "config" / "small.yaml").write_text("config: {bad: 1}\n")
    answer = mesh.cli("reload-config")
    assert answer.returncode == 1
    assert "plugin small: failed (restarted: new config, but " in answer.stdout
    assert mesh.stop() == 0, mesh.text()


def test_check_warns_of_times_that_a_shutdown_cuts_short(mesh: Mesh) -> None:
    mesh.add_plugin("slow", manifest="timeouts: {stop: 60}\n")
    answer = mesh.cli("check")
    assert answer.returncode == 0
    assert "warning: plugin 'slow' may take 60 s to stop, but shutdown.timeout_secs = 30 leaves" in answer.stderr
