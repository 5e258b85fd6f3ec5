"""`broker run`: the daemon in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from broker.cli.session import fail
from broker.cli.settings import config_option, load_config


@click.command()
@config_option
@click.option("--demo", is_flag=True, help="Run the plugins that are shipped with plugmesh, too.")
@click.option("--database", metavar="URL", help="Same as the setting database.url.")
@click.pass_obj
def run(home: Path, config: Path | None, demo: bool, database: str | None) -> None:
    """Run the broker until SIGTERM or SIGINT."""
    loaded = load_config(home, config, {"database.url": database} if database else None)
    from broker.daemon import run as run_daemon
    from broker.home import HomeError

    try:
        code = run_daemon(loaded, demo=demo)
    except HomeError as error:
        fail(str(error))
    sys.exit(code)
