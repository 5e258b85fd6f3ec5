"""`broker replay` and `broker recording`: files that `broker record` made, published again or looked into."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.amounts import events_text, read_speed, size_text
from broker.cli.record import pattern_option
from broker.cli.session import EX_FAILED, EX_INTERRUPTED, dump_json, fail, talk
from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import BusError

if TYPE_CHECKING:
    from broker.recording.player import Pace, Played
    from broker.recording.source import Source

_LATE_SECS = 0.5  # from then on it is worth a line

files_argument = click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)


@click.command()
@files_argument
@click.option(
    "--speed", callback=read_speed, default="original", show_default=True, help="original, max, or such as 2x."
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Events a second at most.")
@pattern_option
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
@click.pass_obj
def replay(
    home: Path,
    /,
    files: tuple[Path, ...],
    speed: float | None,
    rate: float | None,
    patterns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Publish the events in FILES again, in their order, each with the header `recorded-at`."""
    from broker.recording import RecordingError
    from broker.recording.cover import Choice
    from broker.recording.player import Pace, Played
    from broker.recording.source import Source

    played, began = Played(), time.monotonic()
    try:
        source = Source(files)
        wanted = Choice(patterns) if patterns else _everything
        status = _play(home, source, Pace(speed, rate), wanted, played)
    except (RecordingError, BusError) as error:
        fail(str(error))
    summary = _summarize(played, source, time.monotonic() - began)
    click.echo(dump_json(summary, indent=2) if as_json else _told(summary, status))
    for problem in summary["problems"]:
        click.echo(f"broker: {problem}", err=True)
    raise SystemExit(status or (EX_FAILED if summary["refused"] else 0))


@click.command()
@files_argument
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def recording(files: tuple[Path, ...], as_json: bool) -> None:
    """Show what is in FILES that `broker record` made: when, how much, of which subjects, and whether it is whole."""
    from broker.recording import RecordingError
    from broker.recording.contents import survey
    from broker.recording.source import Source

    try:
        found = survey(Source(files))
    except RecordingError as error:
        fail(str(error))
    if as_json:
        click.echo(dump_json(found, indent=2))
    else:
        _show(found)
    if found["problems"]:
        raise SystemExit(EX_FAILED)


def _play(home: Path, source: Source, pace: Pace, wanted: Callable[[str], bool], played: Played) -> int:
    """Replay, with a bar on a terminal; returns the exit status of what ended it early, or 0."""
    from broker.recording.player import Player

    async def work(bus: Bus) -> None:
        with _bar(source) as watch:
            await Player(bus, pace, wanted, played, watch).run(iter(source))

    try:
        talk(home, work)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _everything(subject: str) -> bool:
    return True


@contextmanager
def _bar(source: Source) -> Iterator[Callable[[], None]]:
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=source.size, label="replaying", file=sys.stderr, show_pos=False) as bar:
        yield lambda: bar.update(source.position - bar.pos)


def _summarize(played: Played, source: Source, secs: float) -> dict[str, Any]:
    return {
        "events": played.published,
        "passed_over": played.passed_over,
        "malformed": played.malformed,
        "refused": dict(played.refused),
        "secs": round(secs, 3),
        "late_secs": round(played.late_secs, 3),
        "notes": source.notes,
        "problems": source.problems,
    }


def _told(summary: dict[str, Any], status: int) -> str:
    secs = summary["secs"]
    early = {0: "", EX_INTERRUPTED: ", interrupted"}.get(status, ", then it failed")
    lines = [f"replayed {events_text(summary['events'])} in {secs:.1f} s{early}"]
    if summary["passed_over"]:
        lines.append(f"{events_text(summary['passed_over'])} passed over: the subject was not asked for")
    if summary["malformed"]:
        lines.append(f"{events_text(summary['malformed'])} cannot be published: their publisher broke the format")
    lines += [f"{events_text(number)} refused: {code}" for code, number in summary["refused"].items()]
    if summary["late_secs"] > _LATE_SECS:
        lines.append(f"the pace could not be kept: up to {summary['late_secs']:.1f} s late")
    lines += [f"note of the recorder: {note}" for note in summary["notes"]]
    return "\n".join(lines)


def _show(found: dict[str, Any]) -> None:
    for item in found["files"]:
        click.echo(
            f"{item['file']}  part {item['part']}, {events_text(item['events'])}, {size_text(item['bytes'])},"
            f" {item['ended'] or 'no end'}"
        )
    click.echo(f"{events_text(found['events'])} from {found['from'] or '-'} to {found['to'] or '-'}")
    width = max((len(subject) for subject in found["subjects"]), default=0)
    for subject, number in found["subjects"].items():
        click.echo(f"  {subject:<{width}}  {number:>12,}")
    if found["further_subjects"]:
        click.echo(f"  and {found['further_subjects']:,} further subjects")
    for text in found["notes"]:
        click.echo(f"note of the recorder: {text}")
    for text in found["problems"]:
        click.echo(f"broker: {text}", err=True)
