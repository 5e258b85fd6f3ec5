"""`broker key`: keys for plugins that are started by hand, here or on another machine."""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.session import fail, is_unreachable, reach
from broker.home import CurvePair, Home, HomeError
from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import BusError


@click.group()
def key() -> None:
    """Keys that admit plugins which the broker did not start itself."""


@key.command()
@click.argument("name")
@click.option("--tcp", is_flag=True, help="A CURVE key pair for TCP instead of a key for the local socket.")
@click.option("--replace", is_flag=True, help="Take back the key that NAME has already.")
@click.pass_obj
def add(home: Path, name: str, tcp: bool, replace: bool) -> None:
    """Make a key that admits the plugin NAME and no other; NAME `operator` admits any (only with --tcp)."""
    from broker.edge.curve import new_pair

    place = Home(home)
    try:
        place.prepare()
        if tcp:
            server = place.server_pair()
            if server is None:
                server = CurvePair(*new_pair())
                place.save_server_pair(server)
            file = place.add_tcp_client(name, CurvePair(*new_pair()), server.public, replace=replace)
        else:
            file = place.add_plugin_key(name, replace=replace)
    except (HomeError, BusError, OSError) as error:
        fail(str(error))
    click.echo(file)
    _tell(home)


@key.command()
@click.argument("name")
@click.pass_obj
def remove(home: Path, name: str) -> None:
    """Take the keys of NAME back; a session that stands is not ended."""
    try:
        removed = Home(home).remove_key(name)
    except (BusError, OSError) as error:
        fail(str(error))
    if not removed:
        fail(f"there is no key of {name!r} in {home}")
    for file in removed:
        click.echo(f"removed {file}")
    _tell(home)


@key.command("list")
@click.pass_obj
def list_keys(home: Path) -> None:
    """Print whom the keys admit."""
    place = Home(home)
    try:
        local, remote = place.keys(), place.tcp_clients()
    except HomeError as error:
        fail(str(error))
    for name in sorted(local.values()):
        click.echo(f"{name}  local socket")
    for name in sorted(remote.values()):
        click.echo(f"{name}  TCP")


def _tell(home: Path) -> None:
    """A running broker reads its keys anew; one that does not run will when it starts."""
    if not (home / "run" / "broker.sock").exists():
        return

    async def work(bus: Bus) -> None:
        await bus.call("$broker.keys", {})

    try:
        reach(home, work)
    except BusError as error:
        if is_unreachable(error):
            click.echo("no broker is running: it reads the keys when it starts", err=True)
        else:
            fail(f"the key files are changed, but the broker goes on with the keys it has: {error.text}")
