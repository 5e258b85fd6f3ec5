"""`broker systemd`: the broker as a service."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.session import fail
from broker.cli.settings import config_option, load_config

if TYPE_CHECKING:
    from broker.systemd.unit import Service

_PROBE_SECS = 30.0


def _check_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}", value):
        raise click.BadParameter(f"{value!r} is no name for a unit: use letters, digits, '_', '.' and '-'")
    return value.removesuffix(".service")


_name_option = click.option(
    "--name", default="plugmesh", show_default=True, callback=_check_name, help="Name of the unit."
)


@click.group()
def systemd() -> None:
    """Run the broker as a service of systemd."""


def _unit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--run-as", metavar="USER", help="Account of the service; default: the owner of the home."),
        config_option,
        _name_option,
        click.option("--user", is_flag=True, help="A service of your own, not of the system."),
    ):
        command = option(command)
    return command


@systemd.command()
@_unit_options
@click.pass_obj
def show(home: Path, /, user: bool, name: str, config: Path | None, run_as: str | None) -> None:
    """Print the unit file."""
    from broker.systemd.unit import make_unit

    click.echo(make_unit(_service(home, user, name, config, run_as)), nl=False)


@systemd.command()
@_unit_options
@click.option("--now", is_flag=True, help="Start it now, or restart it.")
@click.option("--force", is_flag=True, help="Replace a unit that was edited; it is kept as NAME.service.old.")
@click.pass_obj
def install(
    home: Path, /, user: bool, name: str, config: Path | None, run_as: str | None, now: bool, force: bool
) -> None:
    """Write the unit file and enable the service."""
    from broker.systemd.installer import Installer, Place, SystemdError
    from broker.systemd.unit import make_unit

    service = _service(home, user, name, config, run_as)
    _check_command(service)
    try:
        for line in Installer(Place.of(user, os.environ)).install(name, make_unit(service), force=force, start=now):
            click.echo(line)
    except SystemdError as error:
        fail(str(error))
    if service.account == "root":
        click.echo("broker: warning: it will run as root, and so will its plugins: see --run-as", err=True)
    if user:
        click.echo("It ends when you log out, unless you run: loginctl enable-linger")


@systemd.command()
@click.option("--user", is_flag=True, help="The service of your own, not that of the system.")
@_name_option
@click.option("--force", is_flag=True, help="Remove a unit that was edited; it is kept as NAME.service.old.")
def uninstall(user: bool, name: str, force: bool) -> None:
    """Stop the service and remove its unit file; the home stays."""
    from broker.systemd.installer import Installer, Place, SystemdError

    try:
        for line in Installer(Place.of(user, os.environ)).uninstall(name, force=force):
            click.echo(line)
    except SystemdError as error:
        fail(str(error))


def _service(home: Path, user: bool, name: str, config: Path | None, run_as: str | None) -> Service:
    from broker.systemd.unit import Service

    if run_as and user:
        raise click.UsageError("--run-as is for services of the system: one of your own runs as you")
    # A variable that is set here is not set for the service.
    loaded = load_config(home, config, environ={})
    shutdown = loaded.shutdown
    return Service(
        name=name,
        home=home,
        command=_command(),
        config=config.absolute() if config else None,
        account=None if user else _account(home, run_as),
        stop_secs=shutdown.timeout_secs + shutdown.force_delay_secs if shutdown.force_quit else None,
        watchdog_secs=shutdown.watchdog.timeout_secs if shutdown.watchdog.enabled else None,
    )


def _command() -> list[str]:
    """How this very installation is started; not resolved, as a virtual environment is known by its link."""
    script = Path(sys.executable).absolute().with_name("broker")
    return [str(script)] if script.exists() else [str(Path(sys.executable).absolute()), "-m", "broker"]


def _check_command(service: Service) -> None:
    """A unit that cannot start is better refused now than found in the journal later."""
    command = [*service.command, "--version"]
    who: dict[str, Any] = {}
    if service.account and os.geteuid() == 0:
        who = {"user": service.account, "group": pwd.getpwnam(service.account).pw_gid, "extra_groups": []}
    try:
        done = subprocess.run(
            command, cwd="/", env={"PATH": os.defpath}, capture_output=True, text=True, timeout=_PROBE_SECS, **who
        )
        problem = (done.stderr.strip().splitlines() or ["it said nothing"])[-1] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        account = f" as {service.account}" if who else ""
        fail(f"`{' '.join(command)}` does not work{account}: {problem}; install plugmesh where the service can use it")


def _account(home: Path, run_as: str | None) -> str:
    """Whose account the service gets: the one asked for, or that of who owns the home or will."""
    try:
        if run_as:
            return pwd.getpwnam(run_as).pw_name
        place = next(folder for folder in (home, *home.parents) if folder.exists())
        return pwd.getpwuid(place.stat().st_uid).pw_name
    except KeyError:
        fail(f"there is no account {run_as or 'for the owner of the home'}: name one with --run-as")
