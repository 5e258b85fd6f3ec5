"""`broker reload-config`: an order to a running broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.cli.progress import order
from broker.cli.session import EX_FAILED, dump_json, fail


@click.command("reload-config")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.option("--timeout", type=click.FloatRange(1), default=120.0, show_default=True, help="Seconds to wait.")
@click.pass_obj
def reload_config(home: Path, as_json: bool, timeout: float) -> None:
    """Let the broker read its configuration and its plugin folders anew, as SIGHUP does, and print what came of it."""
    report = order(home, "$broker.reload_config", {}, timeout)
    if as_json:
        click.echo(dump_json(report, indent=2))
    else:
        _show_reload(report)
    if report["problems"]:
        fail("the configuration is unusable: the broker keeps the one it has", EX_FAILED)
    if any(item["result"] == "failed" for item in report["items"]):
        raise SystemExit(EX_FAILED)


def _show_reload(report: dict[str, Any]) -> None:
    for problem in (*report["problems"], *report["warnings"]):
        click.echo(f"broker: {problem}", err=True)
    for item in report["items"]:
        if item["result"] != "unchanged":
            click.echo(f"{item['name']}: {item['result']}" + (f" ({item['text']})" if item["text"] else ""))
    same = sum(item["result"] == "unchanged" for item in report["items"])
    click.echo(f"{same} unchanged")
