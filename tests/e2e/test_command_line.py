"""The command line, as a newcomer and as a script meet it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.mesh import DEMO, Mesh, eventually


def test_check_prints_the_settings_in_force_and_every_problem_at_once(mesh: Mesh) -> None:
    fine = mesh.cli("check")
    assert fine.returncode == 0, fine.stderr
    assert "shutdown.timeout_secs = 30  (default)" in fine.stdout
    mesh.home.joinpath("broker.toml").write_text("[shutdown]\ntimeout_sec = 5\n[bus]\nheartbeat_secs = -1\n")
    mesh.environ["BROKER_DATABASE_QUEUE_LIMIT"] = "many"
    broken = mesh.cli("check")
    assert broken.returncode == 1
    for part in ("shutdown.timeout_sec", "timeout_secs", "bus.heartbeat_secs", "database.queue_limit", "broker.toml:2"):
        assert part in broken.stderr


def test_check_names_plugins_that_cannot_start(mesh: Mesh) -> None:
    mesh.add_plugin("lonely", manifest='requires: ["ghost>=1"]\n')
    done = mesh.cli("check")
    assert done.returncode == 1
    assert "lonely" in done.stderr
    assert "ghost" in done.stderr


def test_check_looks_at_the_shipped_plugins_too_when_they_are_to_run(mesh: Mesh) -> None:
    assert "0 plugins, 0 of them" in mesh.cli("check").stdout
    checked = mesh.cli("check", "--demo").stdout
    assert f"{len(DEMO)} plugins, 0 of them cannot start" in checked
    for what in ("Landlock", "no_new_privs", "cgroup v2", "bubblewrap"):
        assert f"this machine: {what}: " in checked
    mesh.add_plugin("hello")
    twice = mesh.cli("check", "--demo")
    assert twice.returncode == 1
    assert "plugin id 'hello' is taken by" in twice.stderr


def test_a_configuration_file_that_does_not_exist_is_named(mesh: Mesh) -> None:
    missing = mesh.cli("check", "--config", "/nonexist")
    assert (missing.returncode, missing.stderr) == (1, "broker: /nonexist: there is no such file\n")


def test_a_setting_of_the_environment_goes_before_the_file(mesh: Mesh) -> None:
    mesh.home.joinpath("broker.yaml").write_text("shutdown:\n  timeout_secs: 20\n")
    assert "shutdown.timeout_secs = 20" in mesh.cli("check").stdout
    mesh.environ["BROKER_SHUTDOWN_TIMEOUT_SECS"] = "60"
    assert "shutdown.timeout_secs = 60" in mesh.cli("check").stdout


def test_the_schema_goes_forward_and_back(mesh: Mesh) -> None:
    mesh.home.joinpath("plugins").mkdir()
    newest = mesh.cli("db", "upgrade").stdout.strip()
    assert newest == mesh.cli("db", "current").stdout.strip() != "base"
    assert mesh.cli("db", "downgrade", "base").stdout.strip() == "base"
    assert mesh.cli("db", "current").stdout.strip() == "base"


def test_the_schema_is_not_changed_under_a_running_broker(mesh: Mesh) -> None:
    mesh.database = None
    broker = mesh.run()
    for verb in (("upgrade",), ("downgrade", "base")):
        refused = mesh.cli("db", *verb)
        assert refused.returncode == 1
        assert f"stop it first (kill {broker.pid})" in refused.stderr
    assert mesh.cli("db", "current").returncode == 0
    assert mesh.stop() == 0
    assert mesh.cli("db", "downgrade", "base").stdout.strip() == "base"


def test_ctrl_c_ends_a_tap_without_a_trace(mesh: Mesh) -> None:
    mesh.run()
    tap = mesh.start_cli("tap", "user.>")
    assert tap.stderr is not None
    assert tap.stderr.readline() == "listening to user.>\n"
    tap.send_signal(signal.SIGINT)
    _, rest = tap.communicate(timeout=10)
    assert (tap.returncode, rest) == (130, "")


def test_a_second_key_for_one_plugin_is_made_only_when_that_is_meant(mesh: Mesh) -> None:
    for options in ((), ("--tcp",)):
        made = mesh.cli("key", "add", "guest", *options)
        assert made.returncode == 0, made.stderr
        file = Path(made.stdout.strip())
        first = file.read_text()
        again = mesh.cli("key", "add", "guest", *options)
        assert again.returncode == 1
        assert "add --replace" in again.stderr
        assert file.read_text() == first
        assert mesh.cli("key", "add", "guest", "--replace", *options).returncode == 0
        assert file.read_text() != first


def test_whether_a_broker_reads_the_new_keys_is_told_truly(mesh: Mesh) -> None:
    mesh.run()
    broken = mesh.home / "keys" / "plugins" / "broken.key"
    broken.write_bytes(b"\xff")
    refused = mesh.cli("key", "add", "guest")
    assert refused.returncode == 1
    assert f"{broken} is not a key file" in refused.stderr
    assert "no broker is running" not in refused.stderr
    broken.unlink()
    assert mesh.cli("key", "add", "other").stderr == ""
    assert mesh.process is not None
    mesh.process.kill()
    mesh.process.wait()
    away = mesh.cli("key", "add", "third")
    assert away.returncode == 0
    assert "no broker is running" in away.stderr


def test_status_is_for_people_and_for_programs(mesh: Mesh) -> None:
    mesh.add_plugin("small", '@plugin.service("add")\nasync def add(a, b):\n    return a + b\n')
    mesh.run()
    mesh.wait_for("small")
    table = mesh.cli("status").stdout
    assert "small" in table
    assert "running" in table
    one = mesh.cli("status", "small").stdout
    assert "small.add" in one
    assert json.loads(mesh.cli("status", "small", "--json").stdout)["plugins"][0]["state"] == "running"
    typo = mesh.cli("status", "smal")
    assert typo.returncode == 1
    assert "did you mean 'small'" in typo.stderr


def test_data_comes_from_standard_input_and_replies_are_json(mesh: Mesh) -> None:
    body = (
        '@plugin.service("add")\nasync def add(a, b):\n    return {"sum": a + b}\n'
        '@plugin.service("count")\nasync def count(n):\n    for each in range(n):\n        yield each\n'
    )
    mesh.add_plugin("calc", body)
    mesh.run()
    mesh.wait_for("calc")
    command = [sys.executable, "-m", "broker", "call", "calc.add", "-"]
    piped = subprocess.run(command, env=mesh.environ, input='{"a": 1, "b": 2}', capture_output=True, text=True)
    assert json.loads(piped.stdout) == {"sum": 3}
    assert mesh.cli("call", "calc.count", "3", "--stream").stdout.split() == ["0", "1", "2"]
    wrong = mesh.cli("call", "calc.add", '{"a": 1}')
    assert wrong.returncode == 1
    assert "'b' is missing" in wrong.stderr


def test_home_may_stand_before_or_after_the_command(mesh: Mesh) -> None:
    mesh.run()
    del mesh.environ["BROKER_HOME"]
    assert mesh.cli("--home", str(mesh.home), "status").returncode == 0
    assert mesh.cli("status", "--home", str(mesh.home)).returncode == 0


def test_a_tap_rides_out_a_restart_of_the_broker(mesh: Mesh) -> None:
    mesh.run()
    tap = mesh.start_cli("tap", "a", "--count", "1", "--json")
    assert tap.stderr is not None
    assert "listening" in tap.stderr.readline()
    assert mesh.stop() == 0, mesh.text()
    mesh.run()
    eventually(lambda: tap.pid in session_pids(mesh), what="the tap is back")
    assert mesh.cli("pub", "a", "1").returncode == 0
    seen, _ = tap.communicate(timeout=10)
    assert json.loads(seen)["data"] == 1


def session_pids(mesh: Mesh) -> list[int]:
    return [each["pid"] for each in mesh.ask("$broker.sessions")]


def test_a_retained_event_is_shown_to_who_comes_later(mesh: Mesh) -> None:
    mesh.run()
    assert mesh.cli("pub", "weather.now", '{"degrees": 21}', "--retain").returncode == 0
    seen = mesh.cli("tap", "weather.>", "--last", "--count", "1", "--json")
    assert json.loads(seen.stdout)["data"] == {"degrees": 21}


def test_the_keys_are_listed_and_taken_back(mesh: Mesh) -> None:
    mesh.run()
    assert mesh.cli("key", "add", "guest").returncode == 0
    assert "guest  local socket" in mesh.cli("key", "list").stdout
    assert mesh.cli("key", "remove", "guest").returncode == 0
    assert "guest" not in mesh.cli("key", "list").stdout
    assert mesh.cli("key", "remove", "guest").returncode == 1
    eventually(lambda: mesh.cli("status").returncode == 0)
