"""The shipped services as the broker runs them: scripts in folders of their own, driven over the bus."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.core.router import Router
from broker.daemon.local import local_bus
from broker.edge.server import Edge
from plugin_sdk import Bus, CallError, connect

SERVICES = Path(__file__).parents[3] / "services"
NAMES = sorted(path.parent.name for path in SERVICES.glob("*/plugin.yaml"))
KEY = "test"
PATIENCE = 10.0


def manifest(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((SERVICES / name / "plugin.yaml").read_text())
    return read


class Stage:
    """A broker without a supervisor: the test commands the processes itself.

    Args:
        folder: for the socket, data and output.
        router: of the broker.
        bus: the broker's own session, the only one that may command.
    """

    def __init__(self, folder: Path, router: Router, bus: Bus) -> None:
        self.folder = folder
        self.bus = bus
        self.endpoint = f"ipc://{folder}/b.sock"
        self._router = router
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def spawn(self, name: str, **environment: str) -> None:
        """Start the script of a plugin as the supervisor does: by name, in its folder."""
        env = {
            **os.environ,
            "BROKER_ENDPOINT": self.endpoint,
            "BROKER_TOKEN": KEY,
            "BROKER_DATA_DIR": str(self.folder / name),
            **environment,
        }
        with (self.folder / f"{name}.out").open("wb") as out:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, f"{name}.py", cwd=SERVICES / name, env=env, stdout=out, stderr=out
            )

    def output(self, name: str) -> str:
        """What a process has printed."""
        return (self.folder / f"{name}.out").read_text()

    async def session(self, name: str) -> int:
        """The session of a plugin, as soon as it is registered."""
        async with asyncio.timeout(PATIENCE):
            while (number := self._router.plugin_session(name)) is None:
                assert self.processes[name].returncode is None, self.output(name)
                await asyncio.sleep(0.01)
        return number

    def version(self, name: str) -> str:
        """The version under which a plugin is registered."""
        return next(each.version for each in self._router.snapshot(0).sessions if each.name == name)

    async def command(self, name: str, command: str, body: Any = None) -> Any:
        """Send a life-cycle command."""
        return await self.bus.call(f"$plugin.{command}", body, to=await self.session(name), timeout=PATIENCE)

    async def begin(self, name: str, config: dict[str, Any] | None = None) -> None:
        """Initialize a plugin with its shipped configuration and changes to it, and start it."""
        body = {"config": manifest(name).get("config", {}) | (config or {}), "enabled": True}
        await self.command(name, "initialize", body)
        await self.command(name, "start")


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[tuple[Stage, Bus]]:
    """A stage and a client of it; what still runs at the end is killed."""
    router = Router()
    router.admission.set_keys({KEY: "operator"})
    edge = Edge(router, lambda notices: None)
    made = Stage(folder, router, local_bus(edge, "1"))
    edge.bind_ipc(made.endpoint)
    edge.start()
    await made.bus.open()
    try:
        async with connect(made.endpoint, KEY) as client:
            yield made, client
    finally:
        for process in made.processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()
        await edge.close()


def test_the_login_flow_runs_through_all_of_them_and_they_end_in_order(tmp_path: Path) -> None:
    async def flow() -> None:
        async with stage(tmp_path) as (made, client):
            for name in NAMES:
                await made.spawn(name)
            for name in NAMES:
                await made.begin(name)
                assert made.version(name) == manifest(name)["version"]
                assert (await made.command(name, "health"))["ok"] is True
            assert (await log_in(client)).endswith("INFO hello: user welcomed user_id='12345'")
            for name in NAMES:
                await made.command(name, "cleanup")
            async with asyncio.timeout(PATIENCE):
                codes = {name: await process.wait() for name, process in made.processes.items()}
            assert codes == dict.fromkeys(NAMES, 0)
            printed = [line.split(" ")[1] for line in made.output("stdout").splitlines()]
            assert {"user.login", "user.welcome", "log.hello", "notification.sent"} <= set(printed)

    asyncio.run(flow())
    (mail,) = (tmp_path / "notification" / "outbox").glob("*.eml")
    assert "To: Ada Lovelace <ada@example.org>" in mail.read_text()


async def log_in(client: Bus) -> str:
    """Publish a login, wait for the mail, and return the line in the log."""
    async with asyncio.timeout(PATIENCE), client.subscribe("notification.*") as outcomes:
        await client.publish("user.login", {"user_id": "12345"})
        sent = await anext(aiter(outcomes))
        assert (sent.subject, sent.data["transport"]) == ("notification.sent", "file")
        while not (tail := await client.call("logger.tail", {"n": 1})):  # noqa: ASYNC110 - the logger tells nobody
            await asyncio.sleep(0.01)
    return str(tail[0])


@pytest.mark.parametrize("name", [name for name in NAMES if "config" in manifest(name)])
def test_a_setting_that_a_plugin_does_not_know_is_refused(tmp_path: Path, name: str) -> None:
    async def refuse() -> None:
        async with stage(tmp_path) as (made, _):
            await made.spawn(name)
            with pytest.raises(CallError, match="colour") as caught:
                await made.command(name, "initialize", {"config": {"colour": 1}, "enabled": True})
            assert caught.value.code == "bad_config"

    asyncio.run(refuse())


def test_stdout_ends_when_told_although_nobody_reads_it(tmp_path: Path) -> None:
    async def flood() -> None:
        async with stage(tmp_path) as (made, client):
            fifo = tmp_path / "stdout.out"
            os.mkfifo(fifo)
            reader = os.open(fifo, os.O_RDWR)
            await made.spawn("stdout")
            await made.begin("stdout", {"patience_secs": 0.2})
            for number in range(1000):
                await client.publish("flood.here", {"number": number, "padding": "x" * 500})
            await made.command("stdout", "cleanup")
            async with asyncio.timeout(PATIENCE):
                assert await made.processes["stdout"].wait() == 0
            os.close(reader)

    asyncio.run(flood())
