"""A real `broker run` in a child process, and the command line beside it."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from plugin_sdk import connect

DEMO = ("database", "hello", "logger", "notification", "stdout", "users")
SMALL_PLUGIN = 'from plugin_sdk import Plugin\n\nplugin = Plugin("{name}")\n{body}\nplugin.run()\n'


def eventually(condition: Callable[[], Any], within: float = 10.0, what: str = "") -> Any:
    """The first true value of `condition`; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or condition}")
        time.sleep(0.02)


class Mesh:
    """One broker on a home of its own, which begins with a copy of `database` unless that is None."""

    database: Path | None = None

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home.parent / f"{home.name}.log"
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("BROKER_")}
        self.environ |= {"BROKER_HOME": str(home), "PYTHONPATH": os.getcwd()}
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the broker and return once it answers."""
        self.spawn(*options)
        eventually(self.answers, 15, f"the broker answers; its log: {self.text()}")
        assert self.process is not None
        return self.process

    def spawn(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the broker without waiting."""
        if self.database and self.home.is_dir() and not (self.home / "broker.db").exists():
            shutil.copy(self.database, self.home)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "broker", "run", *options], env=self.environ, stdout=log, stderr=log
            )
        return self.process

    def answers(self) -> bool:
        """Whether the broker is up; fails at once when it has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.text()
        return (self.home / "run" / "broker.sock").exists() and bool(self.status())

    def cli(self, *args: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run `broker` with these arguments."""
        command = [sys.executable, "-m", "broker", *args]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=timeout)

    def start_cli(self, *args: str) -> subprocess.Popen[str]:
        """Run `broker` in the background."""
        command = [sys.executable, "-m", "broker", *args]
        return subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def status(self) -> dict[str, Any]:
        """What `broker status --json` shows."""
        answer: dict[str, Any] = self.ask("$broker.status")
        return answer

    def ask(self, service: str, **args: Any) -> Any:
        """What a service answers, asked without starting a process for it."""

        async def work() -> Any:
            async with connect(home=self.home, name="test") as bus:
                return await bus.call(service, args, wait_ready=2.0, timeout=30.0)

        return asyncio.run(work())

    def plugin(self, name: str) -> dict[str, Any]:
        """One plugin of the status, or an empty map."""
        return next((each for each in self.status()["plugins"] if each["name"] == name), {})

    def wait_for(self, name: str, state: str = "running", within: float = 15.0) -> dict[str, Any]:
        """Wait until a plugin is in a state; returns its row."""
        seen: dict[str, Any] = {}

        def arrived() -> bool:
            seen.clear()
            seen.update(self.plugin(name))
            return seen.get("state") == state

        eventually(arrived, within, f"plugin {name} is {state}, last seen {seen}; log: {self.text()[-3000:]}")
        return seen

    def add_plugin(self, name: str, body: str = "", manifest: str = "") -> Path:
        """Put a plugin folder into the home."""
        folder = self.home / "plugins" / name
        folder.mkdir(parents=True)
        folder.joinpath("plugin.yaml").write_text(f'name: {name}\nversion: "1.0.0"\n{manifest}')
        folder.joinpath("main.py").write_text(SMALL_PLUGIN.format(name=name, body=body))
        return folder

    def rows(self) -> dict[str, tuple[int, str | None]]:
        """Registration status and error of every plugin, from SQLite."""
        with sqlite3.connect(self.home / "broker.db") as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 't_plugin'").fetchone():
                return {}
            found = database.execute("SELECT plugin_id, register_status, register_error FROM t_plugin").fetchall()
        return {name: (status, error) for name, status, error in found}

    def text(self) -> str:
        """The broker's log so far."""
        return self.log.read_text() if self.log.exists() else ""

    def last_message(self) -> str:
        """What the broker logged last; its log is JSON, as it goes into a file."""
        message: str = json.loads(self.text().splitlines()[-1])["message"]
        return message

    def family(self) -> list[psutil.Process]:
        """The broker and everything it started."""
        assert self.process is not None
        broker = psutil.Process(self.process.pid)
        return [broker, *broker.children(recursive=True)]

    def stop(self, number: int = signal.SIGTERM, within: float = 20.0) -> int:
        """Signal the broker and wait for its end; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(within)

    def close(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of these lives any more; a zombie that is not ours to reap counts as gone."""
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes if alive(each))


def alive(process: psutil.Process) -> bool:
    """Whether it exists at all."""
    try:
        return bool(process.status())
    except psutil.NoSuchProcess:
        return False
