"""Limits and sandbox on real processes: what a plugin cannot reach any more, and what is told of it (SEC-3, SEC-4)."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.supervisor import bubblewrap, landlock
from broker.supervisor.confinement import ResourceLimits
from broker.supervisor.discovery import Installed, read_folder
from broker.supervisor.process import Surroundings
from broker.supervisor.processes import descendants, stat
from tests.integration.supervisor.test_process import Bench, run, wrote
from tests.kernel import needs_bubblewrap, needs_landlock

# Tries everything that the arguments name and prints what came of it.
TRIES = """
import json, os, resource, signal, socket, subprocess, sys, tempfile

def attempt(name, action):
    try:
        action()
        results[name] = "done"
    except OSError as error:
        results[name] = type(error).__name__

def connect(path):
    socket.socket(socket.AF_UNIX).connect(path)

results = {}
for each in sys.argv[1:]:
    kind, _, path = each.partition(":")
    attempt(each, {
        "read": lambda: open(path).read(),
        "list": lambda: os.listdir(path),
        "write": lambda: open(path, "w").write("x"),
        "remove": lambda: os.remove(path),
        "signal": lambda: os.kill(int(path), 0),
        "environ": lambda: open(f"/proc/{path}/environ").read(),
        "connect": lambda: connect(path),
        "run": lambda: subprocess.run(path, check=True),
        "temporary": lambda: tempfile.TemporaryFile().close(),
    }[kind])
results["limits"] = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)]
print(json.dumps(results))
"""


def plugin(tmp_path: Path, manifest: str, *tries: str) -> Installed:
    folder = tmp_path / "plugins" / "curious"
    folder.mkdir(parents=True, exist_ok=True)
    command = json.dumps([sys.executable, "main.py", *tries])
    (folder / "plugin.yaml").write_text(f'name: curious\nversion: "1.0"\ncommand: {command}\n{manifest}')
    (folder / "main.py").write_text(TRIES)
    found = read_folder(folder, tmp_path / "config")
    assert not found.fault, found.fault
    return found


def outcome(tmp_path: Path, installed: Installed, **around: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the plugin met, and what was told to be in force."""
    told: dict[str, Any] = {}

    async def scenario(bench: Bench) -> None:
        # Measuring coverage writes into the repository when the plugin exits, which is what a sandbox is to prevent.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        bench.around = Surroundings(tmp_path, f"ipc://{tmp_path}/bus", tmp_path / "data", environ, **around)
        process = bench.start(installed)
        exited = await process.exited
        told.update(process.in_force or {"never ran": str(exited)})
        told["log"] = bench.log("curious")

    run(tmp_path, scenario)
    found = [line[line.index("{") :] for line in told.pop("log").splitlines() if "{" in line]
    return json.loads(found[-1]), told


def test_a_plugin_without_a_sandbox_reaches_what_its_user_reaches(tmp_path: Path) -> None:
    secret = tmp_path / "client.key"
    secret.write_text("key")
    met, told = outcome(tmp_path, plugin(tmp_path, "", f"read:{secret}"))
    assert met[f"read:{secret}"] == "done"
    assert told == {"missing": []}


@needs_landlock()
def test_a_sandboxed_plugin_has_its_own_data_and_the_system_to_read(tmp_path: Path) -> None:
    data = tmp_path / "data" / "curious"
    tries = (f"write:{data}/own", f"read:{data}/own", f"remove:{data}/own", "read:/etc/hostname", "run:/bin/true")
    met, told = outcome(
        tmp_path, plugin(tmp_path, "sandbox: {mode: required}\n", *tries, "temporary:", "write:/dev/null")
    )
    assert {met[each] for each in (*tries, "temporary:", "write:/dev/null")} == {"done"}
    assert told["no_new_privs"] is True
    assert told["landlock"] == landlock.version()


@needs_landlock()
def test_a_sandboxed_plugin_reaches_neither_keys_nor_other_plugins_nor_their_files(tmp_path: Path) -> None:
    secret = tmp_path / "keys" / "client.key"
    secret.parent.mkdir()
    secret.write_text("key")
    other = tmp_path / "data" / "other"
    other.mkdir(parents=True)
    tries = (f"read:{secret}", f"list:{tmp_path}", f"write:{other}/file", "write:/etc/plugmesh-test", "list:/root")
    met, _ = outcome(tmp_path, plugin(tmp_path, "sandbox: {mode: required}\n", *tries, f"environ:{os.getpid()}"))
    met.pop("limits")
    assert met == dict.fromkeys(met, "PermissionError")


@needs_landlock(6)  # from it on signals are denied
def test_a_sandboxed_plugin_cannot_signal_others(tmp_path: Path) -> None:
    met, _ = outcome(tmp_path, plugin(tmp_path, "sandbox: {mode: required}\n", f"signal:{os.getpid()}"))
    assert met[f"signal:{os.getpid()}"] == "PermissionError"


@needs_landlock()
def test_further_paths_are_opened_as_the_manifest_and_the_operator_say(tmp_path: Path) -> None:
    asked, ordered = tmp_path / "asked", tmp_path / "ordered"
    for folder in (asked, ordered, tmp_path / "config"):
        folder.mkdir()
        (folder / "file").write_text("x")
    (tmp_path / "config" / "curious.yaml").write_text(f'sandbox: {{write: ["{ordered}"]}}\n')
    installed = plugin(
        tmp_path,
        f'sandbox: {{mode: required, read: ["{asked}"]}}\n',
        *(f"read:{asked}/file", f"write:{asked}/file", f"write:{ordered}/file"),
    )
    met, _ = outcome(tmp_path, installed)
    assert (met[f"read:{asked}/file"], met[f"write:{asked}/file"]) == ("done", "PermissionError")
    assert met[f"write:{ordered}/file"] == "done"


@needs_landlock()
def test_the_operator_may_switch_a_sandbox_off_and_the_plugin_may_not(tmp_path: Path) -> None:
    secret = tmp_path / "client.key"
    secret.write_text("key")
    met, _ = outcome(tmp_path, plugin(tmp_path, "", f"read:{secret}"), sandbox="best-effort")
    assert met[f"read:{secret}"] == "PermissionError"
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "curious.yaml").write_text("sandbox: {mode: off}\n")
    met, _ = outcome(tmp_path, plugin(tmp_path, "", f"read:{secret}"), sandbox="best-effort")
    assert met[f"read:{secret}"] == "done"


WRAPPED = "sandbox: {mode: required, bubblewrap: true}\n"


@needs_bubblewrap
def test_a_wrapped_plugin_has_its_own_data_and_the_system_and_finds_nothing_else(tmp_path: Path) -> None:
    secret = tmp_path / "keys" / "client.key"
    secret.parent.mkdir()
    secret.write_text("key")
    data = tmp_path / "data" / "curious"
    works = (f"write:{data}/own", f"read:{data}/own", f"remove:{data}/own", "run:/bin/true", "write:/dev/null")
    elsewhere = (f"read:{secret}", f"list:{secret.parent}", f"environ:{os.getpid()}")
    fails = (*elsewhere, f"write:{tmp_path}/plugins/curious/x", "write:/x")
    met, told = outcome(tmp_path, plugin(tmp_path, WRAPPED, *works, "temporary:", *fails))
    met.pop("limits")
    assert {name for name, what in met.items() if what == "done"} == {*works, "temporary:"}
    assert {met[each] for each in elsewhere} == {"FileNotFoundError"}
    assert (told["bubblewrap"], told["capabilities"], told["no_new_privs"]) == (bubblewrap.find(), "none", True)
    assert "landlock" not in told


@needs_bubblewrap
def test_a_wrapped_plugin_has_a_process_table_of_its_own_and_neither_capabilities_nor_new_privileges(
    tmp_path: Path,
) -> None:
    installed = plugin(tmp_path, WRAPPED, "list:/proc/self")
    (installed.folder / "main.py").write_text(
        "import json, os\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "numbers = [name for name in os.listdir('/proc') if name.isdecimal()]\n"
        "told = {name: int(status[name], 16) for name in ('CapEff', 'CapPrm', 'NoNewPrivs')}\n"
        "print(json.dumps(told | {'few': len(numbers) < 5}))\n"
    )
    met, _ = outcome(tmp_path, installed)
    assert met == {"CapEff": 0, "CapPrm": 0, "NoNewPrivs": 1, "few": True}


@needs_bubblewrap
def test_nothing_of_a_wrapped_plugin_is_left_when_it_is_stopped(tmp_path: Path) -> None:
    installed = plugin(tmp_path, WRAPPED)
    (installed.folder / "main.py").write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork():\n"
        "        os._exit(0)\n"
        "    print('ready', flush=True)\n"
        "signal.pause()\n"
    )

    async def scenario(bench: Bench) -> None:
        process = bench.start(installed)
        await wrote(process, "ready")
        assert process.pid is not None
        inside = descendants(process.pid)
        assert len(inside) == 3, "the first process of its table, the plugin, and the one that got away"
        process.stop(0.3)
        assert (await process.exited).alive == ()
        assert not [pid for pid in inside if stat(pid)]

    run(tmp_path, scenario)


@pytest.mark.parametrize("mode", ["best-effort", "required"])
def test_where_there_is_no_bubblewrap_landlock_takes_its_place_unless_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    secret = tmp_path / "client.key"
    secret.write_text("key")
    installed = plugin(tmp_path, f"sandbox: {{mode: {mode}, bubblewrap: true}}\n", f"read:{secret}")
    told: list[dict[str, Any] | None] = []

    async def scenario(bench: Bench) -> None:
        process = bench.start(installed)
        told.append({"end": str(await process.exited), **(process.in_force or {})})

    run(tmp_path, scenario)
    (found,) = told
    assert found is not None
    if mode == "required":
        assert found["end"].startswith("cannot be confined as its sandbox requires: bubblewrap: bwrap is not installed")
    else:
        assert "bubblewrap: bwrap is not installed" in found["missing"]
        assert found.get("landlock", 0) == landlock.version()


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (
            "#!/bin/sh\necho 'bwrap: Creating new namespace failed: Operation not permitted' >&2\nexit 1\n",
            "not permitted",
        ),
        ("#!/bin/sh\nexit 3\n", "bwrap ended with status 3"),
        ("not a program", "bwrap: Exec format error"),
    ],
)
def test_a_bubblewrap_that_does_not_work_here_is_found_out_before_a_plugin_is_given_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, told: str
) -> None:
    (tmp_path / "bwrap").write_text(program)
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bubblewrap.trouble().endswith(told)


def test_who_asks_for_bubblewrap_has_a_sandbox_and_the_operator_decides(tmp_path: Path) -> None:
    around = Surroundings(tmp_path, "", tmp_path, {})
    asking = plugin(tmp_path, "sandbox: {bubblewrap: true}\n")
    assert around.confinement(asking).asked() == {"sandbox": "best-effort", "bubblewrap": True}
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "curious.yaml").write_text("sandbox: {bubblewrap: false}\n")
    assert around.confinement(plugin(tmp_path, "sandbox: {bubblewrap: true}\n")).asked() == {"sandbox": "off"}
    (tmp_path / "config" / "curious.yaml").write_text("sandbox: {bubblewrap: true, mode: required}\n")
    assert around.confinement(plugin(tmp_path, "")).asked() == {"sandbox": "required", "bubblewrap": True}


def test_limits_of_a_process_are_in_force_and_told(tmp_path: Path) -> None:
    met, told = outcome(tmp_path, plugin(tmp_path, "limits: {open_files: 50, file_size: 2M}\n"))
    assert met["limits"] == [50, 2 << 20]
    assert (told["open_files"], told["file_size"]) == (50, 2 << 20)


def test_no_manifest_exceeds_the_limits_of_the_broker(tmp_path: Path) -> None:
    installed = plugin(tmp_path, "limits: {open_files: 500, memory: 1G}\n")
    most = ResourceLimits(open_files=100, memory=256 << 20)
    met, _ = outcome(tmp_path, installed, most=most)
    assert met["limits"][0] == 100
    around = Surroundings(tmp_path, "", tmp_path, {}, most)
    assert around.confinement(installed).asked() == {"sandbox": "off", "open_files": 100, "memory": 256 << 20}


def test_where_a_required_sandbox_cannot_be_had_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = plugin(tmp_path, "sandbox: {mode: required}\n", f"write:{tmp_path}/ran")
    told: dict[str, str] = {}

    async def scenario(bench: Bench) -> None:
        program = bench.around.program(installed, 1, "token", installed.plugin_id)
        program.confinement["cgroup"] = str(tmp_path / "no-such-group")
        monkeypatch.setattr(type(bench.around), "program", lambda *_: program)
        process = bench.start(installed)
        told["end"] = str(await process.exited)

    run(tmp_path, scenario)
    assert told["end"].startswith("cannot be confined as its sandbox requires: cgroup: ")
    assert not (tmp_path / "ran").exists()
