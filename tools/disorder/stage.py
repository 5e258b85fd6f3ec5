"""The processes of a run: broker, database and parties, each of which can be hurt and repaired."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from plugin_sdk import BusError
from tests.mariadb_server import Server
from tools.disorder.cast import CAST, MEMBERS, Member
from tools.disorder.home import Home, Unsettled, spawn, until
from tools.disorder.party import FOLDER, SEED

# Small, so that publishers wait and events are dropped all the time; a silence of three heartbeats loses sessions.
WINDOW, HEARTBEAT_SECS = 64 * 1024, 2.0
DATABASE = "mesh_chaos"
SETTLE_SECS = 60.0
_MAIN = "from tools.disorder.party import main\n\nmain({!r})\n"


class Stage:
    """Everything that runs.

    Args:
        folder: of the run, empty.
        seed: of the run; parties derive theirs from it.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.database = Server()
        self.database.start()
        self.database.create_user()
        self.database.run(f"CREATE DATABASE {DATABASE}")
        self.home = Home(
            folder / "home",
            {
                FOLDER: str(folder),
                SEED: str(seed),
                "BROKER_BUS_CREDIT_BYTES": str(WINDOW),
                "BROKER_BUS_HEARTBEAT_SECS": str(HEARTBEAT_SECS),
                "BROKER_DATABASE_URL": self.database.url(DATABASE),
            },
        )
        self.hands: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "ledgers").mkdir()
        for member in CAST:
            if member.managed:
                self._add_plugin(member)

    async def start(self) -> None:
        """Start the broker, and what does not run yet; raises Unsettled."""
        await self.home.start()
        for member in CAST:
            if not member.managed and self.pid(member.label) is None:
                self.start_by_hand(member)
        await self.all_run()

    async def end(self) -> int:
        """Stop the broker, then what goes on without it; returns the broker's exit status, raises Unsettled."""
        status = await self.home.end()
        for label, process in self.hands.items():
            if process.poll() is not None:
                raise Unsettled(f"{label} ended with {process.returncode} when the broker was stopped")
            process.terminate()
        await until(lambda: all(each.poll() is not None for each in self.hands.values()), 10, "all end after SIGTERM")
        return status

    def start_by_hand(self, member: Member) -> None:
        """Start a party that the broker does not start."""
        command = [sys.executable, "-m", "tools.disorder.party", member.label]
        log = self.folder / f"{member.label}.log"
        self.hands[member.label] = spawn(command, self.home.environment, log)

    def pid(self, label: str) -> int | None:
        """The process that is this party at present, None when there is none."""
        if not MEMBERS[label].managed:
            process = self.hands.get(label)
            return process.pid if process is not None and process.poll() is None else None
        found = sorted((self.folder / "ledgers").glob(f"{label}.*"), key=lambda path: path.stat().st_mtime_ns)
        if not found:
            return None
        pid = int(found[-1].suffix[1:])
        return pid if str(self.folder) in environment_of(pid) else None

    def repair_hands(self) -> None:
        """Start what was started by hand and has ended."""
        for label, process in self.hands.items():
            if process.poll() is not None:
                self.start_by_hand(MEMBERS[label])

    async def all_run(self) -> None:
        """Return once every party runs and is registered; raises Unsettled naming those that do not."""
        missing: list[str] = []

        async def complete() -> bool:
            self.repair_hands()
            missing[:] = [f"{row['name']} is {row['state']}: {row['error']}" for row in await self._not_running()]
            return not missing

        try:
            await until(complete, SETTLE_SECS, "all parties run")
        except Unsettled as error:
            raise Unsettled(f"{error}: {'; '.join(missing)}") from None

    async def status(self) -> dict[str, Any]:
        """What `broker status --json` shows."""
        answer: dict[str, Any] = await self.home.ask("$broker.status")
        return answer

    async def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of the status by label."""
        status = await self.status()
        by_name = {(row["name"], row["instance"]): row for row in status["plugins"]}
        empty = {"state": "unknown", "error": "", "registration": "", "session": None, "pid": None}
        return {each.label: by_name.get((each.name, each.instance), {**empty, "name": each.name}) for each in CAST}

    def sql(self) -> Sequence[tuple[Any, ...]]:
        """Name, registration status and error of every plugin, as the database has them."""
        return self.database.run(f"SELECT plugin_id, register_status, register_error FROM {DATABASE}.t_plugin")

    def processes(self) -> list[psutil.Process]:
        """Every process on this machine that belongs to the run, the database apart."""
        return [each for each in psutil.process_iter() if str(self.folder) in environment_of(each.pid)]

    def close(self) -> None:
        """Leave nothing behind."""
        self.home.close()
        for process in self.hands.values():
            process.kill()
            process.wait()
        self.database.remove()

    def _add_plugin(self, member: Member) -> None:
        folder = self.home.path / "plugins" / member.name
        folder.mkdir(parents=True)
        (folder / "plugin.yaml").write_text(f'name: {member.name}\nversion: "1.0.0"\n')
        (folder / "main.py").write_text(_MAIN.format(member.label))

    async def _not_running(self) -> list[dict[str, Any]]:
        """The rows of parties that do not run; those that have failed are started, as an operator would."""
        try:
            rows = await self.rows()
        except BusError as error:
            return [{"name": "the broker", "state": "away", "error": str(error)}]
        late = [row for row in rows.values() if row["state"] != "running" or row["registration"] != "registered"]
        for row in late:
            if row["state"] == "failed":
                await asyncio.gather(self.home.ask("$broker.start", {"name": row["name"]}), return_exceptions=True)
        return late


def environment_of(pid: int) -> str:
    """The environment of a process, empty when it has ended or is not ours to look at."""
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def signal_process(pid: int, folder: Path, number: int) -> bool:
    """Send a signal to a process of the run, never to one that has got its number since; returns whether it was."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if str(folder) not in environment_of(pid):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
