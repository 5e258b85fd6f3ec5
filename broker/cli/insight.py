"""`broker why`, `broker audit`: what stands behind the state of a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.cli.session import EX_FAILED, ask, dump_json

ANSWER_SECS = 10.0


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON: name, cause, text, next.")
@click.pass_obj
def why(home: Path, name: str, as_json: bool) -> None:
    """Say why the plugin NAME is not reachable, and what to do next.

    Exit status 1 unless it is reachable.
    """
    answer = ask(home, "$broker.why", {"name": name}, ANSWER_SECS)
    if as_json:
        click.echo(dump_json(answer, indent=2))
    else:
        click.echo(f"{answer['cause']}: {answer['text']}")
        click.echo(f"next: {answer['next']}")
    if answer["cause"] != "reachable":
        raise SystemExit(EX_FAILED)


@click.command()
@click.option("--plugin", metavar="NAME", help="Only what was done to this plugin.")
@click.option("-n", "number", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many entries.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def audit(home: Path, plugin: str | None, number: int, as_json: bool) -> None:
    """Show who did what, to which plugin, with what result; the newest entry is the last."""
    for entry in ask(home, "$broker.audit", {"plugin": plugin, "n": number}, ANSWER_SECS):
        click.echo(dump_json(entry) if as_json else _line(entry))


def _line(entry: dict[str, Any]) -> str:
    detail = entry["detail"].partition("\n")[0]
    text = f"{entry['at']}  {entry['actor']}: {entry['action']} {entry['target']}: {entry['result']}"
    return f"{text} ({detail})" if detail else text
