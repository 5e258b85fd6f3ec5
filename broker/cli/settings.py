"""`broker check`, and loading the configuration for the commands that need it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.cli.figures import counted
from broker.cli.session import EX_FAILED

if TYPE_CHECKING:
    from broker.config import Config

config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="TOML or YAML file; default broker.toml or .yaml in the home."
)


def load_config(
    home: Path, file: Path | None, options: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """The configuration in force; prints every problem and ends the process when there are any."""
    from broker.config import ConfigError, load

    try:
        config = load(home, file, os.environ if environ is None else environ, options)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"broker: {problem}", err=True)
        raise SystemExit(EX_FAILED) from None
    for warning in config.warnings:
        click.echo(f"broker: warning: {warning}", err=True)
    return config


@click.command()
@config_option
@click.option("--demo", is_flag=True, help="Check the plugins that are shipped with plugmesh, too.")
@click.pass_obj
def check(home: Path, config: Path | None, demo: bool) -> None:
    """Check the configuration, every plugin folder and every package; print the settings in force and their sources.

    Also prints what of limits and sandbox this machine can do.
    """
    from broker.shutdown.windows import plugin_secs
    from broker.supervisor.discovery import discover, shipped
    from broker.supervisor.forecast import stop_warnings
    from broker.supervisor.plan import make_plan
    from broker.supervisor.probe import probe
    from broker.supervisor.timing import Timing

    loaded = load_config(home, config)
    for setting in loaded.describe():
        source = setting.source + (f":{setting.line}" if setting.line else "")
        click.echo(f"{setting.name} = {setting.value}  ({source})")
    for line in probe():
        click.echo(f"this machine: {line}")
    folders = loaded.plugin_manager
    active = home / "installed" / ".active"
    searched = [each for each in (folders.plugin_dir, active) if each.is_dir()]
    catalog = discover([*searched, *([shipped()] if demo else [])], folders.config_dir)
    for warning in catalog.warnings:
        click.echo(f"broker: warning: {warning}", err=True)
    plan = make_plan(each.candidate for each in catalog.plugins)
    timing = Timing(step=folders.timeout)
    total = loaded.shutdown.timeout_secs
    for warning in stop_warnings(
        catalog.plugins, plan, timing, plugin_secs(total), f"shutdown.timeout_secs = {total:g}"
    ):
        click.echo(f"broker: warning: {warning}", err=True)
    _warn_of_packages(home, loaded)
    faults = _grant_faults(home)
    for name, problem in sorted(plan.problems.items()):
        click.echo(f"broker: plugin {name}: {problem.text}", err=True)
    click.echo(f"{counted(len(catalog.plugins), 'plugin')}, {len(plan.problems)} of them cannot start")
    raise SystemExit(EX_FAILED if plan.problems or faults else 0)


def _warn_of_packages(home: Path, config: Config) -> None:
    """Print which package files in the plugin folder are refused, and why; what came from them before goes on."""
    from broker.cli.asking import look_into
    from broker.packages.errors import KeyFileError, PackageError
    from broker.packages.names import SUFFIX

    for file in sorted(config.plugin_manager.plugin_dir.glob(f"*{SUFFIX}")):
        try:
            found = look_into(home, file, config.plugin_manager.allow_unsigned)
            found.package.admit(found.rules)
            found.wishes()
        except (PackageError, KeyFileError) as error:
            click.echo(f"broker: warning: package {file.name}: {error}", err=True)


def _grant_faults(home: Path) -> bool:
    """Print what is wrong with the operator's file of grants; returns whether anything is."""
    from broker.supervisor.access import read_grants
    from broker.supervisor.document import BadDocument

    try:
        read_grants(home)
    except BadDocument as error:
        click.echo(f"broker: {error}", err=True)
        return True
    return False
