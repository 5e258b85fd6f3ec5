"""`broker graph`: who publishes, subscribes, serves and calls what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from broker.cli.diagram import Graph, dot, mermaid, read_graph, text
from broker.cli.session import ask, dump_json, printable

ANSWER_SECS = 5.0
_FORMS: dict[str, Callable[[Graph], Iterator[str]]] = {"text": text, "mermaid": mermaid, "dot": dot}


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice([*_FORMS, "json"]),
    default="text",
    show_default=True,
    help="mermaid for Markdown, dot for Graphviz.",
)
@click.option(
    "--for",
    "secs",
    type=click.FloatRange(0, 600),
    default=5.0,
    show_default=True,
    help="Seconds to watch the traffic first; 0 for what is known already.",
)
@click.option("--clients/--no-clients", default=True, show_default=True, help="Show clients beside plugins.")
@click.pass_obj
def graph(home: Path, form: str, secs: float, clients: bool) -> None:
    """Show who publishes, subscribes, serves and calls what.

    Who listens and who serves the broker knows at any time. Who publishes and who calls it learns from the traffic,
    from the first time that somebody asks for the graph until ten minutes after the last time.
    """
    answer = _watch(home, secs)
    if form == "json":
        click.echo(dump_json(answer, indent=2))
        return
    for line in _FORMS[form](read_graph(printable(answer), clients)):
        click.echo(line)


def _watch(home: Path, secs: float) -> dict[str, Any]:
    answer: dict[str, Any] = ask(home, "$broker.graph", {}, ANSWER_SECS)
    left = secs - answer["observed_secs"]
    if left > 0:
        click.echo(f"watching the traffic for {left:.0f} s", err=True)
        time.sleep(left)
        answer = ask(home, "$broker.graph", {}, ANSWER_SECS)
    return answer
