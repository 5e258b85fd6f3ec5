"""`broker logs`: what plugins have written, read from their files: it works without a broker, too."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.cli.session import EX_INTERRUPTED, dump_json, fail
from broker.supervisor.levels import LEVELS

if TYPE_CHECKING:
    from broker.supervisor.tailing import LogLine

LOOK_SECS = 0.2
_COLOURS = {"warning": "yellow", "error": "red", "critical": "red", "debug": "bright_black"}


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until interrupted.")
@click.option("-n", "number", type=click.IntRange(0), default=50, show_default=True, help="Lines to begin with.")
@click.option("--level", type=click.Choice(LEVELS), default=LEVELS[0], help="Only lines of this level, or graver.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: at, level, text.")
@click.pass_obj
def logs(home: Path, name: str, follow: bool, number: int, level: str, as_json: bool) -> None:
    """Show what the plugin NAME has written to its standard output and error, with the time of each line in UTC."""
    from broker.supervisor.tailing import Tail

    directory = home / "logs"
    if not follow and not (directory / f"{name}.log").exists():
        written = ", ".join(sorted(path.stem for path in directory.glob("*.log"))) or "none"
        fail(f"no plugin {name!r} has written anything; there are logs of {written}")
    with Tail(directory, name, level) as tail:
        _show(_read(lambda: tail.last(number)), as_json)
        try:
            while follow:
                time.sleep(LOOK_SECS)
                _show(_read(tail.added), as_json)
        except KeyboardInterrupt:
            raise SystemExit(EX_INTERRUPTED) from None


def _read(read: Callable[[], list[LogLine]]) -> list[LogLine]:
    try:
        return read()
    except OSError as error:
        fail(f"{error.filename or 'the log'} cannot be read: {error.strerror}")


def _show(lines: list[LogLine], as_json: bool) -> None:
    for line in lines:
        if as_json:
            click.echo(dump_json({"at": line.at, "level": line.level, "text": line.text}))
        else:
            click.echo(f"{line.at} {click.style(line.text, fg=_COLOURS.get(line.level))}")
