"""A subscriber is frozen while others publish at full speed: who notices, and what does it cost the broker?"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from plugin_sdk.wire.limits import DEFAULT_LIMITS
from tools.disorder.home import Home, spawn, until
from tools.disorder.ledger import now

ROLES = ("server", "subscriber", "publisher", "caller")
MIB = 1 << 20
MEMORY_BOUND = DEFAULT_LIMITS.backlog_bytes  # of events that wait for one subscriber
SLOWER = 3.0  # times that the p99 of others may be while the subscriber is frozen
SAMPLE_SECS = 0.05
CATCH_UP_SECS = 30.0


@dataclass(slots=True)
class Verdict:
    """What was measured; times in microseconds, memory in bytes."""

    frozen_secs: float
    published: int = 0
    received: int = 0
    out_of_order: int = 0
    growth: int = 0
    quiet_p99: int = 0
    flowing_p99: int = 0
    frozen_p99: int = 0
    violations: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Find what breaks a promise."""
        if self.out_of_order:
            self.violations.append(f"event {self.out_of_order} did not come in its turn")
        if self.received != self.published:
            self.violations.append(f"{self.received} events came of {self.published}")
        if self.growth >= MEMORY_BOUND:
            self.violations.append(
                f"the broker grew by {self.growth / MIB:.1f} MiB, its bound is {MEMORY_BOUND / MIB:g}"
            )
        if self.frozen_p99 > SLOWER * self.flowing_p99:
            text = f"p99 of others was {self.frozen_p99} µs while frozen, {self.flowing_p99} µs before"
            self.violations.append(f"{text}: more than {SLOWER:g} times")

    def __str__(self) -> str:
        speeds = {"without events": self.quiet_p99, "at full speed": self.flowing_p99, "while frozen": self.frozen_p99}
        figures = ", ".join(f"{took} µs {when}" for when, took in speeds.items())
        lines = [
            f"chaos stop, subscriber frozen for {self.frozen_secs:g} s",
            f"  {self.published} events published, {self.received} received in order after it went on",
            f"  broker memory grew by {self.growth / MIB:.2f} MiB meanwhile, less than {MEMORY_BOUND / MIB:g}",
            f"  p99 of requests between others: {figures}",
        ]
        return "\n".join([*lines, *(f"VIOLATED: {each}" for each in self.violations)])


async def run_frozen(seconds: float, before: float = 5.0) -> Verdict:
    """Measure for `before` seconds without events, as long at full speed, then `seconds` with the subscriber frozen."""
    verdict = Verdict(seconds)
    with tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True) as temporary:
        home = Home(Path(temporary) / "home")
        processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            await home.start()
            for role in ROLES:
                command = [sys.executable, "-m", "tools.disorder.flow", role, temporary]
                processes[role] = spawn(command, home.environment, Path(temporary) / f"{role}.log")
            await _measure(home, Path(temporary), processes["subscriber"], verdict, before)
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
            home.close()
    verdict.judge()
    return verdict


async def _measure(
    home: Home, folder: Path, subscriber: subprocess.Popen[bytes], verdict: Verdict, before: float
) -> None:
    asked = folder / "asked"
    await until(lambda: asked.exists() and asked.stat().st_size and (folder / "received").exists(), 20, "all are there")
    marks = [now()]
    await asyncio.sleep(before)
    marks.append(now())
    (folder / "flow").touch()
    await asyncio.sleep(before)
    size = home.size()[0]
    subscriber.send_signal(signal.SIGSTOP)
    marks.append(now())
    verdict.growth = await _watch_memory(home, verdict.frozen_secs) - size
    marks.append(now())
    subscriber.send_signal(signal.SIGCONT)
    await asyncio.sleep(min(before, 2.0))
    (folder / "quiet").touch()
    await until(lambda: (folder / "published").exists(), CATCH_UP_SECS, "the publisher is done")
    verdict.published = int((folder / "published").read_text())
    await until(lambda: _received(folder)[0] >= verdict.published, CATCH_UP_SECS, "all events have come")
    verdict.received, verdict.out_of_order = _received(folder)
    verdict.quiet_p99, verdict.flowing_p99, verdict.frozen_p99 = _percentiles(asked, marks)


async def _watch_memory(home: Home, seconds: float) -> int:
    """The most that the broker had."""
    most = 0
    until = now() + seconds * 1e6
    while now() < until:
        most = max(most, home.size()[0])
        await asyncio.sleep(SAMPLE_SECS)
    return most


def _received(folder: Path) -> tuple[int, int]:
    came, wrong = (folder / "received").read_text().split()
    return int(came), int(wrong)


def _percentiles(asked: Path, marks: list[int]) -> list[int]:
    """The 99th percentile of what was asked between two marks each."""
    rows = [(int(when), int(took)) for when, took in map(str.split, asked.read_text().splitlines())]
    found = []
    for begin, end in pairwise(marks):
        times = sorted(took for when, took in rows if begin <= when < end)
        found.append(times[len(times) * 99 // 100])
    return found
