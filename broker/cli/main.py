"""The command `broker`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from broker import __version__

# By the module of each. Only that of the given command is imported: the daemon would keep the memory of all for good.
_DAEMON = {
    "run": "run",
    "check": "settings",
    "reload-config": "control",
    "systemd": "systemd",
    "db": "database",
    "key": "keys",
}
_VIEWS = {"status": "status", "top": "top", "graph": "graph", "why": "insight", "logs": "logs", "audit": "insight"}
_PLUGINS = {
    **dict.fromkeys(("start", "stop", "reload", "upgrade", "enable", "disable", "drain"), "orders"),
    **dict.fromkeys(("install", "remove"), "install"),
    "package": "package",
}
_MESSAGES = {
    "pub": "messages",
    "call": "messages",
    "tap": "tap",
    "record": "record",
    "replay": "replay",
    "recording": "replay",
}
_MODULES = _DAEMON | _VIEWS | _PLUGINS | _MESSAGES


class _Group(click.Group):
    """Imports a command when it is given, and takes --home before or after it: both are natural."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(import_module(f"broker.cli.{_MODULES[cmd_name]}"), cmd_name.replace("-", "_"))
        return command

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
