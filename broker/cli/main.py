"""The command `broker`."""

from __future__ import annotations

from pathlib import Path

import click

from broker import __version__
from broker.cli.control import reload_config
from broker.cli.database import db
from broker.cli.graph import graph
from broker.cli.insight import audit, why
from broker.cli.install import install, remove
from broker.cli.keys import key
from broker.cli.logs import logs
from broker.cli.messages import call, pub
from broker.cli.orders import disable, drain, enable, reload, start, stop, upgrade
from broker.cli.package import package
from broker.cli.record import record
from broker.cli.replay import recording, replay
from broker.cli.run import run
from broker.cli.settings import check
from broker.cli.status import status
from broker.cli.systemd import systemd
from broker.cli.tap import tap
from broker.cli.top import top


class _Group(click.Group):
    """Takes --home before or after the command: both are natural."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        moved: list[str] = []
        rest: list[str] = []
        position = 0
        while position < len(args):
            if args[position] == "--":
                rest += args[position:]
                break
            if args[position] == "--home" and position + 1 < len(args):
                moved += args[position : position + 2]
                position += 2
                continue
            (moved if args[position].startswith("--home=") else rest).append(args[position])
            position += 1
        return super().parse_args(ctx, [*moved, *rest])


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="broker")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BROKER_HOME",
    default="~/.plugmesh",
    show_default=True,
    help="Directory of the broker; also BROKER_HOME.",
)
@click.pass_context
def main(ctx: click.Context, home: Path) -> None:
    """Run a plugmesh broker, or talk to one that runs."""
    ctx.obj = home.expanduser().absolute()


DAEMON = (run, check, reload_config, systemd, db, key)
VIEWS = (status, top, graph, why, logs, audit)
PLUGINS = (start, stop, reload, upgrade, enable, disable, drain, install, remove, package)
MESSAGES = (pub, call, tap, record, replay, recording)

for command in (*DAEMON, *VIEWS, *PLUGINS, *MESSAGES):
    main.add_command(command)
