"""How fast the bus is recorded and replayed: python -m tools.benchmark.recording [--events N]

A publisher in a tight loop, a real broker and a real `broker record`, each a process of its own; then `broker replay`
at full speed into a second recorder. Every event must be in both files.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

import click

from plugin_sdk import Bus, connect
from tools.benchmark import facts
from tools.benchmark.child import ROOT, BenchmarkError
from tools.benchmark.payload import SUBJECT, make_event
from tools.benchmark.systems.plugmesh import accepts, spawn_broker

_END_SECS = 60.0


class _Recorder:
    """A running `broker record`."""

    def __init__(self, home: Path, file: Path) -> None:
        command = _command(home, "record", str(file), "--json")
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        if "recording" not in (line := self._process.stderr.readline()):
            raise BenchmarkError(f"broker record said {line!r}")

    async def end(self, events: int) -> None:
        """End it once the broker has routed everything; raises BenchmarkError unless it has every event."""
        self._process.send_signal(signal.SIGINT)
        out, errors = await asyncio.to_thread(self._process.communicate, timeout=_END_SECS)
        if self._process.returncode or json.loads(out)["events"] != events:
            raise BenchmarkError(f"broker record has not all of {events} events: {out or errors}")


@click.command()
@click.option("--events", type=click.IntRange(1000), default=500_000, show_default=True)
def main(events: int) -> None:
    """Measure, and print events a second."""
    if warning := facts.busy():
        click.echo(f"warning: {warning}", err=True)
    with tempfile.TemporaryDirectory(prefix="bench-home-") as directory:
        home = Path(directory)
        with spawn_broker(home) as broker:
            asyncio.run(accepts(broker, home))
            asyncio.run(_measure(home, events))


async def _measure(home: Path, events: int) -> None:
    async with connect(home=home, name="bench-publisher") as bus:
        _tell("published, nobody listens", events, await _publish(bus, events))
        recorder = _Recorder(home, home / "a.rec")
        began = monotonic()
        await _publish(bus, events)
        await recorder.end(events)
        _tell("published and recorded", events, monotonic() - began, home / "a.rec")
        played = await asyncio.to_thread(_replay, home)
        _tell("replayed, nobody listens", events, played["secs"])
        recorder = _Recorder(home, home / "b.rec")
        played = await asyncio.to_thread(_replay, home)
        await recorder.end(events)
        _tell("replayed and recorded", events, played["secs"], home / "b.rec")


async def _publish(bus: Bus, events: int) -> float:
    began = monotonic()
    for number in range(events):
        await bus.publish(SUBJECT, make_event(0, number))
    # Its answer comes after the broker has routed the last of them.
    await bus.call("$broker.ping")
    return monotonic() - began


def _replay(home: Path) -> dict[str, Any]:
    command = _command(home, "replay", str(home / "a.rec"), "--speed", "max", "--json")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"broker replay failed: {done.stderr}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _command(home: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "broker", "--home", str(home), *args]


def _tell(what: str, events: int, secs: float, file: Path | None = None) -> None:
    size = f", {file.stat().st_size / secs / (1 << 20):.0f} MiB/s on the disk" if file else ""
    click.echo(f"{what}: {events / secs:,.0f} events/s{size}")


if __name__ == "__main__":
    main()
