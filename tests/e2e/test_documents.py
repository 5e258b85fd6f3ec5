"""README, docs and the services' own pages: what they tell a newcomer to type works as it is written there."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli.main import main
from broker.config import load
from tests.e2e.mesh import Mesh, eventually

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def mesh(mesh: Mesh) -> Mesh:
    """A home as it is after the installation."""
    mesh.database = None
    return mesh


def fenced(text: str, language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def indented(text: str, heading: str) -> str:
    """The first indented code block below a heading."""
    below = text.partition(f"## {heading}\n")[2]
    block = re.search(r"(?:^    .*\n)+", below, re.MULTILINE)
    assert block, f"no code below {heading!r}"
    return textwrap.dedent(block[0])


def shell(mesh: Mesh, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as it stands, with `broker` on the path; its jobs are ended with it."""
    command = folder / "bin" / "broker"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m broker "$@"\n')
    command.chmod(0o755)
    environ = {**mesh.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    with subprocess.Popen(
        ["bash", "-c", script],
        env=environ,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=40)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(script, process.returncode, out, err)


def test_the_plugin_in_ten_lines_runs_as_it_is_written(mesh: Mesh) -> None:
    code, manifest = fenced(README, "python")[0], fenced(README, "yaml")[0]
    assert len([line for line in code.splitlines() if line]) <= 10
    folder = mesh.home / "plugins" / "greeter"
    folder.mkdir(parents=True)
    folder.joinpath("greeter.py").write_text(code)
    folder.joinpath("plugin.yaml").write_text(manifest)
    mesh.run()
    mesh.wait_for("greeter")
    _welcomes(mesh)


def test_the_plugin_in_ten_lines_runs_when_it_is_started_by_hand(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "greeter.py"
    file.write_text(fenced(README, "python")[0])
    mesh.run()
    with subprocess.Popen([sys.executable, str(file)], env=mesh.environ) as greeter:
        try:
            assert mesh.wait_for("greeter")["pid"] == greeter.pid
            _welcomes(mesh)
        finally:
            greeter.kill()


def _welcomes(mesh: Mesh) -> None:
    tap = mesh.start_cli("tap", "user.welcome", "--count", "1", "--json")
    assert tap.stderr is not None
    tap.stderr.readline()
    assert mesh.cli("pub", "user.login", '{"user_id": "12345"}').returncode == 0
    out, _ = tap.communicate(timeout=10)
    assert json.loads(out)["data"] == {"user_id": "12345"}


def test_the_client_of_the_readme_runs_as_it_is_written(mesh: Mesh, tmp_path: Path) -> None:
    snippet = fenced(README, "python")[1]
    head, _, body = snippet.partition("\n\n")
    code = f"import asyncio\n{head}\nasync def main():\n{textwrap.indent(body, '    ')}\nasyncio.run(main())\n"
    mesh.run("--demo")
    mesh.wait_for("hello")
    printed = tmp_path / "printed"
    with (
        printed.open("w") as stdout,
        subprocess.Popen([sys.executable, "-u", "-c", code], env=mesh.environ, stdout=stdout) as client,
    ):
        try:
            eventually(lambda: _heard(mesh, client, printed), 15, "the client prints an event")
        finally:
            client.kill()


def _heard(mesh: Mesh, client: "subprocess.Popen[bytes]", printed: Path) -> bool:
    """Whether the client has printed what is published now, or before."""
    assert client.poll() is None
    mesh.cli("pub", "user.login", '{"user_id": "12345"}')
    return "user.login {'user_id': '12345'}" in printed.read_text()


def test_the_shell_commands_of_the_readme_run_as_they_are_written(mesh: Mesh, tmp_path: Path) -> None:
    (script,) = fenced(README, "sh")
    done = shell(mesh, script + "wait %1\n", tmp_path)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [event["subject"] for event in events] == ["user.login", "user.welcome"]


@pytest.mark.parametrize("name", ["database", "hello", "notification"])
def test_a_service_does_what_its_page_says_when_it_is_tried(mesh: Mesh, tmp_path: Path, name: str) -> None:
    page = (ROOT / "services" / name / "README.md").read_text(encoding="utf-8")
    mesh.environ["BROKER_HOME"] = str(mesh.home)
    mesh.run("--demo")
    mesh.wait_for(name)
    mesh.wait_for("hello")
    done = shell(mesh, indented(page, "Try it") + "wait\n", tmp_path)
    pattern = re.search(r"broker tap '([a-z]+)\.>'", page)
    assert pattern
    passed = re.compile(rf"\d\d:\d\d:\d\d\.\d{{3}}  {pattern[1]}\.")
    assert len([line for line in done.stdout.splitlines() if passed.match(line)]) == 2, done
    assert "Usage:" not in done.stderr


def test_every_command_of_the_readme_exists_with_the_options_that_it_names() -> None:
    lines = [line for line in indented(README, "Use").splitlines() if line.startswith("broker ")]
    assert len(lines) >= 10
    for line in lines:
        command = re.split(r" {2,}", line)[0]
        verbs = re.findall(r"broker ((?:(?:db|key) )?[a-z-]+)", command)
        assert verbs, line
        for verb in verbs:
            shown = CliRunner().invoke(main, [*verb.split(), "--help"])
            assert shown.exit_code == 0, f"{line}: {shown.output}"
            for option in set(re.findall(r"--[a-z-]+", command)) - {"--home"}:
                assert option in shown.output, f"{line}: no option {option}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_setting_that_a_page_shows_is_one(page: Path, tmp_path: Path) -> None:
    for number, snippet in enumerate(fenced(page.read_text(encoding="utf-8"), "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(snippet)
        load(tmp_path, file, {})
