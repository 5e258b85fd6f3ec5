"""`broker start`, `stop`, `reload`, `upgrade`, `enable`, `disable`, `drain`: orders to the plugins of a broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cli.progress import order
from broker.cli.session import EX_FAILED, dump_json, fail

C = TypeVar("C", bound=Callable[..., Any])


def timeout_option(command: C) -> C:
    """How long to wait for an order that goes on in any case."""
    return click.option(
        "--timeout",
        type=click.FloatRange(1),
        default=120.0,
        show_default=True,
        help="Seconds to wait for the result; what was ordered goes on.",
    )(command)


@click.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also what is quarantined after a failed upgrade.")
@timeout_option
@click.pass_obj
def start(home: Path, name: str, force: bool, timeout: float) -> None:
    """Start the plugin NAME, after the plugins that it needs; what was counted against it before is forgotten."""
    answer = order(home, "$broker.start", {"name": name, "force": force}, timeout)
    click.echo(f"{name} is {answer['state']}" + (f" (process {answer['pid']})" if answer.get("pid") else ""))
    if answer["state"] != "running":
        fail(answer.get("error") or f"{name} is not running", EX_FAILED)


@click.command()
@click.argument("name")
@timeout_option
@click.pass_obj
def stop(home: Path, name: str, timeout: float) -> None:
    """Stop the plugin NAME, and before it those that need it, until they are started or the broker is."""
    answer = order(home, "$broker.stop", {"name": name}, timeout)
    for each in answer["stopped"]:
        click.echo(f"{each} is stopped")


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "every", is_flag=True, help="Every plugin that is not stopped.")
@click.option("--json", "as_json", is_flag=True, help="The results as JSON.")
@timeout_option
@click.pass_obj
def reload(home: Path, names: tuple[str, ...], every: bool, as_json: bool, timeout: float) -> None:
    """Stop plugins and start them again with what their folders hold now, each with a result of its own.

    Those that need others go down first and come up last. A plugin that is stopped is started. Exit status 1 when one
    of them does not run afterwards.
    """
    if every == bool(names):
        raise click.UsageError("give the names of plugins, or --all")
    answer = order(home, "$broker.reload", {} if every else {"names": list(names)}, timeout)
    results = answer["results"]
    if as_json:
        click.echo(dump_json(answer, indent=2))
    else:
        for each in results:
            _show_result(each)
    if any(each["result"] == "failed" for each in results):
        raise SystemExit(EX_FAILED)


@click.command()
@click.argument("name")
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Folder with the new version; without it the plugin's own folder, as it is now.",
)
@click.option("--force", is_flag=True, help="Also a version that is quarantined because it failed before.")
@timeout_option
@click.pass_obj
def upgrade(home: Path, name: str, folder: Path | None, force: bool, timeout: float) -> None:
    """Put a new version of the plugin NAME in the place of the one that runs, without losing a request.

    The new version is started beside the old one, which serves until the new one has been well for a while. One that
    fails is stopped and quarantined, and the old one goes on.
    """
    path = str(folder) if folder else None
    answer = order(home, "$broker.upgrade", {"name": name, "path": path, "force": force}, timeout)
    later = "" if answer["running"] else ", for its next start: it is stopped"
    click.echo(f"{name}: upgraded from {answer['before'] or 'nothing'} to {answer['after']}{later}")


@click.command()
@click.argument("name")
@timeout_option
@click.pass_obj
def enable(home: Path, name: str, timeout: float) -> None:
    """Let the plugin NAME run again, whatever its configuration says, and start it."""
    answer = order(home, "$broker.enable", {"name": name}, timeout)
    click.echo(f"{name} is {answer['state']}")


@click.command()
@click.argument("name")
@timeout_option
@click.pass_obj
def disable(home: Path, name: str, timeout: float) -> None:
    """Stop the plugin NAME, and before it those that need it, and keep it from running until it is enabled."""
    answer = order(home, "$broker.disable", {"name": name}, timeout)
    for each in answer["stopped"]:
        if each != name:
            click.echo(f"{each} is stopped")
    click.echo(f"{name} is disabled")


@click.command()
@click.argument("name")
@click.option("--undo", is_flag=True, help="Put it back.")
@click.option("--timeout", type=click.FloatRange(0, 3600), default=30.0, show_default=True, help="Seconds to wait.")
@click.pass_obj
def drain(home: Path, name: str, undo: bool, timeout: float) -> None:
    """Give the plugin NAME no new requests and events, and wait until it has finished what it has; it goes on running.

    Exit status 1 when it has not finished in time; it stays drained. A restart of the plugin ends it, too.
    """
    if undo:
        order(home, "$broker.undrain", {"name": name}, timeout + 5.0)
        click.echo(f"{name} is back")
        return
    answer = order(home, "$broker.drain", {"name": name, "timeout": timeout}, timeout + 5.0)
    if not answer["finished"]:
        fail(f"{name} gets nothing new, but has not finished what it has within {timeout:g} s", EX_FAILED)
    click.echo(f"{name} is drained; `broker drain {name} --undo` puts it back")


def _show_result(result: dict[str, Any]) -> None:
    name, attempts = result["name"], result["attempts"]
    if result["result"] == "failed":
        click.echo(f"{name}: failed: {result['error']}", err=True)
    else:
        click.echo(f"{name}: reloaded" + (f" after {attempts} attempts" if attempts > 1 else ""))
