"""`broker record`: what passes on the bus into a file."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.amounts import events_text, read_size, size_text
from broker.cli.figures import counted
from broker.cli.session import dump_json, fail, talk
from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import BusError

if TYPE_CHECKING:
    from broker.recording.recorder import Progress, Recorder
    from broker.recording.writer import Writer

pattern_option = click.option(
    "--pattern",
    "-p",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only subjects that match, for example 'user.>'; may be repeated. Default: all.",
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@pattern_option
@click.option(
    "--rotate", callback=read_size, metavar="SIZE", help="Begin a new file before one exceeds this, such as 100M."
)
@click.option("--max-bytes", callback=read_size, metavar="SIZE", help="End before all files together exceed this.")
@click.option("--duration", type=click.FloatRange(0, min_open=True), metavar="SECS", help="End after so many seconds.")
@click.option(
    "--overflow",
    type=click.Choice(["block", "drop_oldest", "drop_newest"]),
    default="block",
    show_default=True,
    help="When the disk is slower than the bus: slow the publishers, or lose events and count them.",
)
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
@click.pass_obj
def record(home: Path, /, file: Path, as_json: bool, patterns: tuple[str, ...], **options: Any) -> None:
    """Record the events that pass into FILE, until Ctrl-C, for `broker replay`.

    With --rotate the files are FILE with -0001, -0002 … before its suffix. A file that exists is never written to.
    """
    from broker.recording import RecordingError
    from broker.recording.cover import cover

    wanted, summaries = patterns or (">",), list[dict[str, Any]]()

    async def work(bus: Bus) -> None:
        summaries.append(await _record(bus, file, wanted, **options))

    try:
        cover(wanted)
        talk(home, work)
    except (RecordingError, BusError) as error:
        fail(str(error))
    click.echo(dump_json(summaries[0], indent=2) if as_json else _told(summaries[0]))
    if summaries[0]["error"]:
        fail(summaries[0]["error"])


async def _record(
    bus: Bus,
    file: Path,
    patterns: tuple[str, ...],
    rotate: int | None,
    max_bytes: int | None,
    duration: float | None,
    overflow: str,
) -> dict[str, Any]:
    from broker.recording.layout import Header
    from broker.recording.recorder import Recorder
    from broker.recording.writer import Writer

    node = (await bus.call("$broker.status", {}, wait_ready=2.0))["broker"]["node"]
    header = Header(secrets.token_hex(8), 1, time.time_ns() // 1000, patterns, node)
    writer = Writer(file, header, rotate, max_bytes)
    recorder = Recorder(bus, writer, patterns, overflow)
    _stop_on_signals(recorder)
    progress = await recorder.run(duration, lambda: _say_ready(patterns, writer), _watcher())
    return _summarize(recorder, writer, progress)


def _stop_on_signals(recorder: Recorder) -> None:
    """The first signal ends the recording in order, a second one the process: the disk may hang."""
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        recorder.stop(f"stopped by {number.name}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)


def _say_ready(patterns: tuple[str, ...], writer: Writer) -> None:
    click.echo(f"recording {' '.join(patterns)} to {writer.files[0]}, Ctrl-C ends it", err=True)


def _watcher() -> Callable[[Progress], None]:
    """Shows how far a recording has got, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda progress: None
    last = [0, 0.0]

    def watch(progress: Progress) -> None:
        rate = (progress.events - last[0]) / max(progress.secs - last[1], 0.001)
        last[:] = progress.events, progress.secs
        line = f"{events_text(progress.events)}, {size_text(progress.bytes)}, {rate:,.0f} a second"
        click.echo(f"\r{line:<70}\r", err=True, nl=False)

    return watch


def _summarize(recorder: Recorder, writer: Writer, progress: Progress) -> dict[str, Any]:
    return {
        "files": [str(path) for path in writer.files],
        "events": progress.events,
        "bytes": progress.bytes,
        "secs": round(progress.secs, 3),
        "ended": recorder.why,
        "dropped": recorder.dropped,
        "interruptions": recorder.interruptions,
        "error": str(recorder.error or ""),
    }


def _told(summary: dict[str, Any]) -> str:
    files = summary["files"]
    where = files[0] if len(files) == 1 else f"{len(files)} files, {files[0]} to {files[-1]}"
    amount = f"{events_text(summary['events'])} ({size_text(summary['bytes'])})"
    lines = [f"recorded {amount} in {summary['secs']:.1f} s into {where}: {summary['ended']}"]
    if summary["dropped"]:
        lines.append(f"{events_text(summary['dropped'])} dropped by the broker, as the disk was too slow")
    if summary["interruptions"]:
        times = counted(summary["interruptions"], "time")
        lines.append(f"the connection to the broker was lost {times}: what was published meanwhile is missing")
    return "\n".join(lines)
