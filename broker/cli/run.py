"""`broker run`: the daemon in the foreground."""

from __future__ import annotations

import os
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
    """Run the broker until SIGTERM, SIGINT or SIGQUIT; SIGHUP reloads the configuration.

    \b
    Exit status: 0 stopped in order; 1 it could not start; 3 stopped, but something was left undone;
    4 forced to end, by a second signal or because the time for the shutdown was over.
    """
    options = {"database.url": database} if database else None
    loaded = load_config(home, config, options)
    from broker.config import load
    from broker.daemon import run as run_daemon
    from broker.home import HomeError

    try:
        code = run_daemon(loaded, lambda: load(home, config, os.environ, options), demo=demo)
    except HomeError as error:
        fail(str(error))
    _let_go_of_a_full_disk()
    sys.exit(code)


def _let_go_of_a_full_disk() -> None:
    """Python ends with status 120, whatever it was told, when it cannot write out what was logged last."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
