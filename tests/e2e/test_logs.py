"""What plugins print: kept, read back by level, followed, and collected by the logger (OPS-7)."""

import json
import shutil
from pathlib import Path

from tests.e2e.mesh import Mesh, eventually

LOGGER = Path(__file__).parents[2] / "services" / "logger"
CHATTY = """
import sys

@plugin.service("say")
async def say(text: str) -> None:
    print(text, flush=True)

print("INFO I begin")
print("WARNING the disk is nearly full", file=sys.stderr, flush=True)
"""


def collected(mesh: Mesh) -> list[str]:
    """The lines that the logger has written."""
    path = mesh.home / "data" / "logger" / "mesh.log"
    return path.read_text().splitlines() if path.exists() else []


def test_logs_are_read_back_by_number_and_level_also_when_no_broker_runs(mesh: Mesh) -> None:
    mesh.add_plugin("chatty", CHATTY)
    mesh.run()
    mesh.wait_for("chatty")
    mesh.cli("call", "chatty.say", '"ERROR it is full"')

    def read(*options: str) -> list[str]:
        return [line.partition(" ")[2] for line in mesh.cli("logs", "chatty", *options).stdout.splitlines()]

    eventually(lambda: len(read()) >= 3, 10)
    every = ["INFO I begin", "WARNING the disk is nearly full", "ERROR it is full"]
    assert read()[:3] == every
    assert read("-n", "1", "--level", "error") == ["ERROR it is full"]
    shown = json.loads(mesh.cli("call", "$broker.logs", '{"name": "chatty", "n": 5, "level": "warning"}').stdout)
    assert [(line["level"], line["text"]) for line in shown] == [("warning", every[1]), ("error", every[2])]
    assert mesh.stop() == 0
    assert read("--level", "warning") == every[1:]
    unknown = mesh.cli("logs", "chaty")
    assert unknown.returncode == 1
    assert "no plugin 'chaty' has written anything; there are logs of chatty" in unknown.stderr
    (mesh.home / "logs" / "folder.log").mkdir()
    unreadable = mesh.cli("logs", "folder")
    assert (unreadable.returncode, unreadable.stdout) == (1, "")
    assert unreadable.stderr == f"broker: {mesh.home}/logs/folder.log cannot be read: Is a directory\n"


def test_logs_are_followed(mesh: Mesh) -> None:
    mesh.add_plugin("chatty", CHATTY)
    mesh.run()
    mesh.wait_for("chatty")
    with mesh.start_cli("logs", "-f", "-n", "1", "chatty") as follower:
        try:
            assert follower.stdout is not None
            assert "the disk is nearly full" in follower.stdout.readline()
            mesh.cli("call", "chatty.say", '"and on it goes"')
            assert "and on it goes" in follower.stdout.readline()
        finally:
            follower.kill()


def test_the_logger_collects_what_others_print_and_not_its_own_lines(mesh: Mesh) -> None:
    mesh.add_plugin("chatty", CHATTY)
    shutil.copytree(LOGGER, mesh.home / "plugins" / "logger", ignore=shutil.ignore_patterns("__pycache__"))
    mesh.run()
    mesh.wait_for("chatty")
    mesh.wait_for("logger")

    def say(text: str) -> None:
        mesh.cli("call", "chatty.say", json.dumps(text))

    def arrived(text: str) -> bool:
        say(text)
        return any(text in line for line in collected(mesh))

    # Whether anybody listens is looked at twice a second.
    eventually(lambda: arrived("ERROR no paper"), 10)
    assert any(line.endswith(" ERROR chatty: ERROR no paper") for line in collected(mesh))
    eventually(lambda: arrived("that is all"), 10)
    assert not [line for line in collected(mesh) if " logger: " in line]
