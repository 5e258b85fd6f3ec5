"""The command line of `tools/scale`."""

import os
import sys
from collections.abc import Callable, Sequence

import click

from tools.scaling import chains, idle, packages, peers
from tools.scaling.figures import Figure, ScaleError

NAMES = ("chains", "peers", "idle", "packages")


@click.command()
@click.argument("only", nargs=-1, type=click.Choice(NAMES))
@click.option(
    "--watch", type=click.FloatRange(1), default=20.0, show_default=True, help="Seconds that idling is watched."
)
def main(only: Sequence[str], watch: float) -> None:
    """Measure whether plugmesh keeps its bounds with many plugins, peers and packages: all of them, or ONLY some.

    chains: 100 plugins that need each other, started and stopped; peers: 1,000 registrations; idle: 100 plugins that do
    nothing; packages: 500 that have not changed. Exit status 1 when a bound is missed.
    """

    def progress(text: str) -> None:
        click.echo(text, err=True)

    trials: dict[str, Callable[[], list[Figure]]] = {
        "chains": lambda: chains.measure(progress),
        "peers": lambda: peers.measure(progress),
        "idle": lambda: idle.measure(progress, watch),
        "packages": lambda: packages.measure(progress),
    }
    # Others that compute at the same time make every figure in seconds worse.
    click.echo(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the beginning")
    figures = []
    for name in only or NAMES:
        try:
            figures += trials[name]()
        except ScaleError as error:
            raise click.ClickException(f"{name}: {error}") from error
    for figure in figures:
        click.echo(str(figure))
    sys.exit(0 if all(figure.kept for figure in figures) else 1)
