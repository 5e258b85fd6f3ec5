"""`broker status`, `broker start`, `broker stop`: the plugins of a running broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.cli.session import EX_FAILED, ask, dump_json, fail
from broker.control.slow import describe_slow

ANSWER_SECS = 5.0
_COLOURS = {"running": "green", "failed": "red", "backoff": "yellow", "disabled": "bright_black"}


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.pass_obj
def status(home: Path, name: str | None, as_json: bool) -> None:
    """Show the broker and its plugins, or everything about the plugin NAME."""
    answer = ask(home, "$broker.status", {"name": name}, ANSWER_SECS)
    if as_json:
        click.echo(dump_json(answer, indent=2))
    elif name:
        _show_plugin(answer["plugins"][0])
        _show_slow(answer["slow_consumers"])
    else:
        _show_broker(answer["broker"])
        _show_slow(answer["slow_consumers"])
        _show_table(answer["plugins"])


@click.command()
@click.argument("name")
@click.option("--timeout", type=click.FloatRange(1), default=120.0, show_default=True, help="Seconds to wait.")
@click.pass_obj
def start(home: Path, name: str, timeout: float) -> None:
    """Start the plugin NAME, after the plugins that it needs."""
    answer = ask(home, "$broker.start", {"name": name}, timeout)
    click.echo(f"{name} is {answer['state']}" + (f" (process {answer['pid']})" if answer.get("pid") else ""))
    if answer["state"] != "running":
        fail(answer.get("error") or f"{name} is not running", EX_FAILED)


@click.command()
@click.argument("name")
@click.option("--timeout", type=click.FloatRange(1), default=120.0, show_default=True, help="Seconds to wait.")
@click.pass_obj
def stop(home: Path, name: str, timeout: float) -> None:
    """Stop the plugin NAME, and before it those that need it."""
    answer = ask(home, "$broker.stop", {"name": name}, timeout)
    for each in answer["stopped"]:
        click.echo(f"{each} is stopped")


@click.command("reload-config")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.option("--timeout", type=click.FloatRange(1), default=120.0, show_default=True, help="Seconds to wait.")
@click.pass_obj
def reload_config(home: Path, as_json: bool, timeout: float) -> None:
    """Let the broker read its configuration and its plugin folders anew, as SIGHUP does, and print what came of it."""
    report = ask(home, "$broker.reload_config", {}, timeout)
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


def _show_broker(facts: dict[str, Any]) -> None:
    database = facts["database"]
    click.echo(
        f"broker {facts['version']} on {facts['node']}, process {facts['pid']}, up {_span(facts['uptime_secs'])},"
        f" {facts['sessions']} sessions, database {database['status']}"
    )
    if database["reason"]:
        click.secho(f"  {database['reason']}", fg="yellow")
    if database["pending"] or database["dropped"]:
        click.echo(f"  {database['pending']} writes wait for the database, {database['dropped']} lost")
    for warning in facts["warnings"]:
        click.secho(f"  {warning}", fg="yellow")


def _show_slow(consumers: list[dict[str, Any]]) -> None:
    for each in consumers:
        click.secho(f"slow consumer {each['name']}: {describe_slow(each)}", fg="yellow")


def _show_table(plugins: list[dict[str, Any]]) -> None:
    if not plugins:
        click.echo("no plugins: put one into the plugin folder, or start one by hand")
        return
    rows = [
        (each["name"], each["version"], each["state"], each["registration"], str(each["pid"] or "-"), _note(each))
        for each in plugins
    ]
    heads = ("NAME", "VERSION", "STATE", "REGISTRATION", "PID", "")
    widths = [max(map(len, column)) for column in zip(*rows, heads, strict=True)][:-1]
    click.echo("  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=False)))
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        cells[2] = click.style(cells[2], fg=_COLOURS.get(row[2]))
        click.echo("  ".join([*cells, row[-1]]).rstrip())


def _show_plugin(plugin: dict[str, Any]) -> None:
    for name, value in plugin.items():
        if value in (None, "", [], {}, ()):
            continue
        click.echo(f"{name.replace('_', ' ') + ':':<16} {value if isinstance(value, str) else dump_json(value)}")


def _note(plugin: dict[str, Any]) -> str:
    notes = []
    if plugin["uptime_secs"] is not None and plugin["state"] == "running":
        notes.append(f"up {_span(plugin['uptime_secs'])}")
    if not plugin["managed"]:
        notes.append("started by hand")
    if plugin["restarts"]:
        notes.append(f"{plugin['restarts']} restarts")
    if plugin["silent_secs"] and plugin["silent_secs"] > plugin["silent_limit_secs"]:
        notes.append(f"unresponsive, silent for {_span(plugin['silent_secs'])}")
    if plugin["error"]:
        notes.append(plugin["error"].splitlines()[0][:100])
    return ", ".join(notes)


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
