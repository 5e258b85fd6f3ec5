"""The guides do what they say: their commands are run in order, and what they print is what the reader is shown."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, eventually

GUIDES = Path(__file__).parents[2] / "docs" / "guide"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "@@@ next"


@dataclass
class Step:
    """A command of a guide, and what it shows as its output."""

    command: str
    shown: list[str] = field(default_factory=list)


@pytest.fixture
def mesh(mesh: Mesh) -> Mesh:
    """A home as it is after the installation."""
    mesh.database = None
    return mesh


def steps(text: str) -> Iterator[Step]:
    """Every command of a guide; a here-document belongs to its command."""
    for block in _BLOCK.findall(text):
        found: list[Step] = []
        here = False
        for line in block.splitlines():
            if here or line.startswith("$ "):
                if here:
                    found[-1].command += f"\n{line}"
                else:
                    found.append(Step(line.removeprefix("$ ")))
                here = (here or "<<'EOF'" in line) and line != "EOF"
            else:
                found[-1].shown.append(line)
        yield from found


def as_pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split("…")))


class Shell:
    """One shell in which a guide is followed from its beginning to its end."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        tools = folder / "tools"
        tools.mkdir()
        (tools / "broker").write_text(f'#!/bin/sh\nexec {sys.executable} -m broker "$@"\n')
        (tools / "broker").chmod(0o755)
        self._log = folder / "log"
        self._work = folder / "work"
        self._work.mkdir()
        environ = {**mesh.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-m"], stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self._work, env=environ
            )

    def run(self, number: int, command: str) -> list[str]:
        """What a command prints, on either stream."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\necho '{_MARK} {number}'\n".encode())
        self.process.stdin.flush()
        done = f"{_MARK} {number}\n"
        eventually(lambda: done in self._log.read_text(), 60, f"{command}: {self._log.read_text()[-2000:]}")
        return self._log.read_text().partition(done)[0].rpartition(_MARK)[2].splitlines()[1 if number else 0 :]

    def close(self, home: Path) -> None:
        """Leaves nothing behind, however far it came."""
        pid = (home / "broker.lock").read_text().strip() if (home / "broker.lock").exists() else ""
        if pid:
            os.kill(int(pid), signal.SIGKILL)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("guide", sorted(GUIDES.glob("*.md")), ids=lambda path: path.stem)
def test_a_guide_can_be_followed(mesh: Mesh, tmp_path: Path, guide: Path) -> None:
    shell = Shell(mesh, tmp_path)
    try:
        followed = list(steps(guide.read_text(encoding="utf-8")))
        assert followed
        for number, step in enumerate(followed):
            if step.command.endswith("&"):
                shell.run(number, f"{step.command.removesuffix('&')} > {tmp_path}/broker.log 2>&1 &")
                eventually(lambda: mesh.cli("status").returncode == 0, 20)
                continue
            printed = shell.run(number, step.command)
            for line in step.shown:
                assert any(re.fullmatch(as_pattern(line), each) for each in printed), (step.command, line, printed)
    finally:
        shell.close(mesh.home)
