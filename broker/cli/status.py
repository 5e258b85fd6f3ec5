"""`broker status`: what runs, since when, and why something does not, on one screen."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from broker.cli.details import COLOURS, Row, plugin_lines, reason
from broker.cli.figures import amount, counted, several, size, span
from broker.cli.session import ask, dump_json, printable
from broker.control.slow import describe_slow

ANSWER_SECS = 5.0

_HEADS = ("NAME", "VERSION", "STATE", "PID", "UP", "MEMORY", "HANDLED", "FAILED")
_NUMBERS = range(3, len(_HEADS))
_REASON_LINES = 3
_SLOW_SHOWN = 3


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.option("--all", "everything", is_flag=True, help="Every plugin in full, even if the screen is too small.")
@click.pass_obj
def status(home: Path, name: str | None, as_json: bool, everything: bool) -> None:
    """Show the broker and its plugins, or everything about the plugin NAME.

    Plugins that should run and do not come first, with the reason. On a terminal that is too small for all of them,
    those that simply run are listed by name.
    """
    answer = ask(home, "$broker.status", {"name": name}, ANSWER_SECS)
    terminal = shutil.get_terminal_size()
    if as_json:
        click.echo(dump_json(answer, indent=2))
        return
    answer = printable(answer)
    if name:
        lines = [line for row in answer["plugins"] for line in plugin_lines(row)]
        lines += _slow_lines(answer["slow_consumers"])
    else:
        height = None if everything or not sys.stdout.isatty() else terminal.lines - 1
        lines = screen(answer, terminal.columns if sys.stdout.isatty() else None, height)
    for line in lines:
        click.echo(line)


def screen(answer: dict[str, Any], width: int | None, height: int | None) -> list[str]:
    """The broker and its plugins as lines.

    Args:
        answer: from `$broker.status`.
        width: columns there are, None for as many as needed.
        height: lines there are, None for as many as needed.
    """
    head = [*_broker_lines(answer["broker"]), *_slow_lines(answer["slow_consumers"])]
    rows = sorted(answer["plugins"], key=_urgency)
    if not rows:
        return [*head, "", "no plugins: put one into the plugin folder, or start one by hand"]
    full = [*head, "", *_table(rows, width)]
    if height is None or len(full) <= height:
        return full
    notable = [row for row in rows if _urgency(row)[0] < _QUIET]
    lines = [*head, *(["", *_table(notable, width)] if notable else []), ""]
    for rank, title in ((_QUIET, "run without trouble"), (_AT_REST, "are stopped or disabled")):
        names = [row["name"] for row in rows if _urgency(row)[0] == rank]
        if names:
            lines += [f"{len(names)} {title}:", *_flow(names, width or 80)]
    if len(lines) <= height:
        return lines
    return [*lines[: height - 1], f"… {counted(len(lines) - height + 1, 'more line')}: broker status --all"]


_WRONG, _SUSPICIOUS, _QUIET, _AT_REST = range(4)


def _urgency(row: Row) -> tuple[int, str, str]:
    if row["state"] != "running":
        rank = _WRONG if row["desired"] == "running" and row["state"] != "disabled" else _AT_REST
    else:
        rank = _SUSPICIOUS if reason(row) else _QUIET
    return rank, row["name"], row["instance"]


def _broker_lines(facts: dict[str, Any]) -> Iterator[str]:
    plugins, queues, counters = facts["plugins"], facts["queues"], facts["counters"]
    yield (
        f"{click.style('broker', bold=True)} {facts['version']} on {facts['node']}, process {facts['pid']},"
        f" up {span(facts['uptime_secs'])}, {counted(facts['sessions'], 'session')}"
    )
    failed = click.style(f", {plugins['failed']} failed", fg="red") if plugins["failed"] else ""
    memory = size(facts["total"]["memory_bytes"])
    yield f"{counted(plugins['total'], 'plugin')}, {plugins['running']} running{failed}; {memory} of memory"
    yield (
        f"{several(counters['events_published'], 'event')}, {amount(facts['events_per_sec'])}/s,"
        f" {amount(queues['events'])} waiting, {amount(counters['events_dropped'])} dropped;"
        f" {several(queues['requests_running'], 'request')} running, {amount(queues['requests_waiting'])} waiting"
    )
    yield from (click.style(line, fg="yellow") for line in _troubles(facts))


def _troubles(facts: dict[str, Any]) -> Iterator[str]:
    database = facts["database"]
    if database["status"] != "up" or database["reason"] or database["dropped"]:
        lost = f", {counted(database['dropped'], 'write')} lost" if database["dropped"] else ""
        why = f": {database['reason']}" if database["reason"] else ""
        yield f"database {database['status']}, {counted(database['pending'], 'write')} waiting{lost}{why}"
    # The whole of it is in the log; here it would push the plugins off the screen.
    yield from (each.partition("\n")[0] for each in facts["warnings"])


def _slow_lines(consumers: Sequence[Row]) -> Iterator[str]:
    worst = sorted(consumers, key=lambda each: -float(each["secs"]))
    for each in worst[:_SLOW_SHOWN]:
        yield click.style(f"slow consumer {each['name']}: {describe_slow(each)}", fg="yellow")
    if len(worst) > _SLOW_SHOWN:
        yield click.style(f"… and {len(worst) - _SLOW_SHOWN} more slow consumers", fg="yellow")


def _table(rows: Sequence[Row], width: int | None) -> Iterator[str]:
    cells = [_cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, _HEADS, strict=True)]
    head = "  ".join(_placed(index, name, widths) for index, name in enumerate(_HEADS)).rstrip()
    yield click.style(head, bold=True)
    for row, line in zip(rows, cells, strict=True):
        placed = [_placed(index, cell, widths) for index, cell in enumerate(line)]
        placed[2] = click.style(placed[2], fg=COLOURS.get(row["state"]))
        yield "  ".join(placed).rstrip()
        if text := _remark(row):
            yield from _indented(text, width, row["state"])


def _cells(row: Row) -> tuple[str, ...]:
    figures = row["figures"]
    instance = f"/{row['instance']}" if row["instance"] else ""
    return (
        row["name"] + instance,
        row["version"] or "-",
        row["state"],
        str(row["pid"] or "-"),
        span(row["uptime_secs"]),
        size(row["memory_bytes"]),
        amount(figures["events_handled"] + figures["requests_handled"]),
        amount(figures["events_failed"] + figures["requests_failed"]),
    )


def _placed(index: int, cell: str, widths: Sequence[int]) -> str:
    return cell.rjust(widths[index]) if index in _NUMBERS else cell.ljust(widths[index])


def _remark(row: Row) -> str:
    """What has to be said of a plugin below its line."""
    parts = [reason(row)]
    if row["restarts"]:
        parts.append(f"restarted {counted(row['restarts'], 'time')}, last end: {row['last_exit'] or 'unknown'}")
    if not row["managed"] and row["state"] == "running" and any(parts):
        parts.append("started by hand")
    return "; ".join(filter(None, parts))


def _indented(text: str, width: int | None, state: str) -> Iterator[str]:
    lines = textwrap.wrap(text, max(20, (width or 10_000) - 4)) or [""]
    if len(lines) > _REASON_LINES:
        lines = [*lines[: _REASON_LINES - 1], lines[_REASON_LINES - 1][: (width or 80) - 6] + " …"]
    for line in lines:
        yield click.style(f"    {line}", fg="red" if state == "failed" else "yellow")


def _flow(names: Sequence[str], width: int) -> list[str]:
    """Names one behind the other; in columns one long name would cost every line."""
    text = "  ".join(names)
    lines = textwrap.wrap(text, width - 2, break_long_words=False, break_on_hyphens=False)
    return [f"  {line}" for line in lines]
