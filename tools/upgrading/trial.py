"""One broker, one plugin under traffic, and its upgrades one after the other."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugin_sdk import connect
from plugin_sdk.wire.errors import BusError
from tools.upgrading.versions import NAME, TROUBLES, write

START_SECS = 20.0
SETTLE_SECS = 20.0


class TrialError(Exception):
    """The trial could not be made."""


@dataclass
class Verdict:
    """What callers and events have noticed, and how the upgrades went.

    Args:
        calls: how many calls were made, by the version that answered; those that failed by their code in `failures`.
        lost: events that no version has handled.
        doubled: events that were handled twice.
        wrong: upgrades that did not go as they should, in words.
    """

    upgraded: int = 0
    rolled_back: int = 0
    begun: int = 0
    versions: int = 0
    longest_secs: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)
    secs: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nobody has noticed anything."""
        return not (self.failures or self.lost or self.doubled or self.wrong)


def run(folder: Path, good: int, bad: int, rate: float, progress: Callable[[str], None]) -> Verdict:
    """Makes so many good and bad upgrades in turn, under `rate` calls and as many events a second.

    Args:
        folder: empty; for the broker's home and the versions. Its path must be short, as sockets need.

    Raises:
        TrialError: broker or traffic did not begin.
    """
    home = folder / "home"
    write(home / "plugins" / NAME, "1.0")
    verdict = Verdict()
    began = time.monotonic()
    with _broker(home, folder / "broker.log"), traffic(home, rate) as process:
        asyncio.run(_upgrade_all(home, folder, good, bad, verdict, progress))
        report = json.loads(process.communicate(timeout=SETTLE_SECS)[0])
        verdict.begun, verdict.failures = report["begun"], report["failures"]
        verdict.versions, verdict.longest_secs = len(report["versions"]), report["longest_secs"]
        events = handled(home, verdict.begun)
    verdict.lost = len(set(range(verdict.begun)) - events.keys())
    verdict.doubled = sum(number > 1 for number in events.values())
    verdict.secs = time.monotonic() - began
    return verdict


async def _upgrade_all(
    home: Path, folder: Path, good: int, bad: int, verdict: Verdict, progress: Callable[[str], None]
) -> None:
    troubles = itertools.cycle(TROUBLES)
    async with connect(home=home, name="operator") as bus:
        for number in range(max(good, bad)):
            if number < good:
                version = f"2.{number}"
                problem = await _upgrade(bus, write(folder / "versions" / version, version))
                verdict.upgraded += not problem
                progress(f"upgrade to {version}: {problem or 'done'}")
                verdict.wrong += [f"upgrade to {version}: {problem}"] if problem else []
            if number < bad:
                trouble, version = next(troubles), f"3.{number}"
                problem = await _upgrade(bus, write(folder / "versions" / version, version, trouble))
                verdict.rolled_back += bool(problem)
                progress(f"upgrade to {version}, which {trouble}: {problem.partition(':')[0] or 'taken over'}")
                verdict.wrong += [] if problem else [f"{version}, which {trouble}, was taken over"]


async def _upgrade(bus: Any, folder: Path) -> str:
    try:
        await bus.call("$broker.upgrade", {"name": NAME, "path": str(folder)}, timeout=60)
    except BusError as error:
        return error.text
    return ""


def handled(home: Path, begun: int) -> Counter[int]:
    """How often each event was handled, once all are or nothing more comes."""
    ledger = home / "data" / NAME / "handled"
    deadline = time.monotonic() + SETTLE_SECS
    while True:
        found = Counter(int(line) for line in ledger.read_text().splitlines())
        if len(found) >= begun or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@contextmanager
def _broker(home: Path, log: Path) -> Iterator[None]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    home.chmod(0o700)
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "broker", "run", "--home", str(home)]
        process = subprocess.Popen(command, env=environ, stdout=sink, stderr=sink)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def traffic(home: Path, rate: float) -> "Iterator[subprocess.Popen[str]]":
    """Calls and publishes at a rate until the standard input of the process is closed; then it prints its report."""
    key = home / "keys" / "client.key"
    deadline = time.monotonic() + START_SECS
    while not ((home / "run" / "broker.sock").exists() and key.exists()):
        if time.monotonic() > deadline:
            raise TrialError(f"the broker on {home} does not listen after {START_SECS:g} s; see its log beside it")
        time.sleep(0.05)
    command = [sys.executable, "-m", "tools.upgrading.traffic", str(home), str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise TrialError(f"plugin {NAME} does not answer; see the log of the broker beside {home}")
            yield process
        finally:
            if process.poll() is None:
                process.kill()
