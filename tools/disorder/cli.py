"""The command line of `tools/chaos`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from tools.disorder.frozen import run_frozen
from tools.disorder.home import Unsettled
from tools.disorder.hostile import run_hostile
from tools.disorder.lifecycle import run_lifecycle
from tools.disorder.mesh import run_mesh


@click.group()
def main() -> None:
    """Hurt real processes and see that the promises of docs/guarantees.md are kept. Exits 1 when one is not."""


@main.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=120, show_default=True, help="Of disorder.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Decides what happens.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for ledgers and logs, with a short path; otherwise they are removed.",
)
def mesh(seconds: float, seed: int, keep: Path | None) -> None:
    """Kill, freeze and restart plugins, broker and database, with garbage, deaf readers and floods of connections.

    Publishers, subscribers, queue groups, services and callers keep ledgers, which must balance afterwards.
    """
    if keep is not None:
        keep.mkdir(parents=True)
    report = asyncio.run(run_mesh(seconds, seed, keep))
    click.echo(report)
    sys.exit(1 if report.violations else 0)


@main.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=30, show_default=True, help="Of being frozen.")
def stop(seconds: float) -> None:
    """Freeze a subscriber with the policy `block` at full publishing speed.

    The memory of the broker must stay within its bound, requests between others must stay fast, and every event must
    arrive in order once the subscriber goes on.
    """
    try:
        verdict = asyncio.run(run_frozen(seconds))
    except Unsettled as error:
        sys.exit(f"tools/chaos stop: {error}")
    click.echo(verdict)
    sys.exit(1 if verdict.violations else 0)


@main.command()
@click.option("--cycles", type=click.IntRange(min=10), default=10_000, show_default=True, help="Of coming and going.")
def hostile(cycles: int) -> None:
    """Attack a broker by peers that keep to no rule: every bound, forged sessions, answers for others, floods.

    Whoever breaks a rule must be told so by a typed error, and two others who are at work must not notice.
    """
    findings = run_hostile(cycles)
    click.echo(findings)
    sys.exit(1 if findings.faults else 0)


@main.command()
@click.option("--seconds", type=click.FloatRange(min=2), default=120, show_default=True, help="Of orders.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Decides what is ordered.")
def lifecycle(seconds: float, seed: int) -> None:
    """Kill, stop, start, reload, disable and upgrade plugins at random, one of them under traffic.

    Afterwards SQL, status and the process table must agree, nothing may be left of anybody, no call and no event of
    the plugin under traffic may be lost, and the broker's memory must be flat.
    """
    story = asyncio.run(run_lifecycle(seconds, seed))
    click.echo(story)
    sys.exit(1 if story.violations else 0)
