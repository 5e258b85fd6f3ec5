"""Sets up a supervisor with plugin folders of a test's making, a mesh for it, and a record of what it wrote down."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from broker.supervisor.cgroups import Groups
from broker.supervisor.processes import descendants
from broker.supervisor.restart import RestartLimits
from broker.supervisor.supervisor import Supervisor
from broker.supervisor.timing import Timing
from broker.supervisor.view import PluginView
from tests.integration.supervisor.mesh import LineMesh

PEER = Path(__file__).with_name("peer.py")
PLUGINS = Path(__file__).parents[2] / "plugins"
PATIENCE = 15.0

QUICK = Timing(
    step=5.0,
    cleanup=1.0,
    stop=2.0,
    retry_first=0.01,
    retry_longest=0.02,
    abort=0.3,
    settle=0.3,
    restart=RestartLimits(shortest=0.01, longest=0.02, slow_retry=3600.0),
)


@dataclass
class Written:
    """The records: what a database would hold, and every write on the way there."""

    status: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    history: list[tuple[str, int, str | None]] = field(default_factory=list)
    described_as: dict[str, dict[str, Any]] = field(default_factory=dict)
    exits: list[tuple[str, str, int]] = field(default_factory=list)
    quarantine: list[tuple[str, str, str, bool]] = field(default_factory=list)
    kept: list[tuple[str, str, str, str]] = field(default_factory=list)

    def registration(self, plugin_id: str, status: int, error: str | None) -> None:
        self.status[plugin_id] = (status, error)
        self.history.append((plugin_id, status, error))

    def described(self, plugin_id: str, **what: Any) -> None:
        self.described_as[plugin_id] = what

    def exceeded(self, plugin_id: str, limit: str, result: str, text: str) -> None:
        self.kept.append((plugin_id, limit, result, text))

    def exited(self, plugin_id: str, text: str, restarts: int) -> None:
        self.exits.append((plugin_id, text, restarts))

    def quarantined(self, plugin_id: str, digest: str, version: str, reason: str, *, released: bool) -> None:
        self.quarantine.append((plugin_id, version, reason, released))

    def statuses(self, plugin_id: str) -> list[int]:
        """The values that its status went through."""
        return [status for name, status, _ in self.history if name == plugin_id]


class Stage:
    """A supervisor in a temporary home."""

    def __init__(
        self, home: Path, timing: Timing = QUICK, max_concurrency: int = 8, groups: Groups | None = None
    ) -> None:
        self.home = home
        self.plugins = home / "plugins"
        self.config = home / "config"
        self.records = Written()
        self.mesh = LineMesh(home / "bus", self._opened, self._lost)
        self.supervisor = Supervisor(
            self.mesh,
            self.records,
            plugin_dirs=[self.plugins],
            config_dir=self.config,
            data_dir=home / "data",
            log_dir=home / "logs",
            home=home,
            endpoint=self.mesh.endpoint,
            max_concurrency=max_concurrency,
            timing=timing,
            groups=groups,
            dice=lambda: 0.5,
        )
        # A second broker on the same home finds what the first one left.
        self.plugins.mkdir(exist_ok=True)
        self.config.mkdir(exist_ok=True)

    def add(self, name: str, version: str = "1.0", *, peer: dict[str, Any] | None = None, **manifest: Any) -> None:
        """Installs a plugin that runs peer.py and misbehaves as `peer` says."""
        self.write(self.plugins / name, name, version, peer=peer, **manifest)

    def write(
        self, folder: Path, name: str, version: str, *, peer: dict[str, Any] | None = None, **manifest: Any
    ) -> Path:
        """The same in a folder that need not be among the installed ones."""
        folder.mkdir(exist_ok=True)
        what = {"name": name, "version": version, "command": [sys.executable, "-I", "-S", str(PEER)], **manifest}
        what["env"] = {"PEER": json.dumps(peer or {}), **manifest.get("env", {})}
        (folder / "plugin.yaml").write_text(yaml.safe_dump(what))
        return folder

    def peer_command(self) -> str:
        """The command of the plugins that are added, for a shell."""
        return shlex.join([sys.executable, "-I", "-S", str(PEER)])

    def add_folder(self, name: str, **manifest: Any) -> None:
        """Installs one of tests/plugins, with additions to its manifest."""
        (self.plugins / name).symlink_to(PLUGINS / name)
        if manifest:
            self.configure(name, **manifest)

    def configure(self, name: str, **overrides: Any) -> None:
        """Writes the operator's file of a plugin."""
        (self.config / f"{name}.yaml").write_text(yaml.safe_dump(overrides))

    @contextmanager
    def by_hand(self, name: str, peer: dict[str, Any] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
        """Starts a plugin as an operator would, without the supervisor, and kills it in the end."""
        who = {"BROKER_ENDPOINT": self.mesh.endpoint, "BROKER_PLUGIN": name, "PEER": json.dumps(peer or {})}
        with subprocess.Popen([sys.executable, "-I", "-S", str(PEER)], env={**os.environ, **who}) as process:
            try:
                yield process
            finally:
                process.kill()

    def view(self, name: str) -> PluginView:
        """What is told of a plugin."""
        return next(view for view in self.supervisor.snapshot() if view.name == name)

    def states(self) -> dict[str, str]:
        """The state of every plugin."""
        return {view.name: view.state for view in self.supervisor.snapshot()}

    async def reaches(self, name: str, state: str) -> PluginView:
        """Waits until a plugin is in a state."""
        await until(lambda: name in self.states() and self.view(name).state == state)
        return self.view(name)

    def _opened(self, plugin_id: str, session: int) -> None:
        self.supervisor.session_opened(plugin_id, session)

    def _lost(self, plugin_id: str, session: int, reason: str) -> None:
        self.supervisor.session_lost(plugin_id, session, reason)


async def until(condition: Callable[[], object]) -> None:
    """Waits for what no event announces, with a bound."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a state of somebody else's process wakes nobody
            await asyncio.sleep(0.005)


def play(home: Path, scenario: Callable[[Stage], Awaitable[None]], **settings: Any) -> Stage:
    """Runs a scenario, stops everything, and checks that no process is left."""

    async def whole() -> Stage:
        stage = Stage(home, **settings)
        await stage.mesh.open()
        try:
            async with asyncio.timeout(3 * PATIENCE):
                await scenario(stage)
        finally:
            assert await stage.supervisor.stop_all(PATIENCE) == []
            await stage.mesh.close()
        return stage

    # The session may have a database server of its own running.
    before = set(descendants(os.getpid()))
    stage = asyncio.run(whole())
    assert not set(descendants(os.getpid())) - before
    return stage
