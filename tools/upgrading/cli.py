"""The command line of `tools/upgrade`."""

import sys
import tempfile
from pathlib import Path

import click

from tools.upgrading.trial import TrialError, Verdict, run


@click.command()
@click.option("--good", type=click.IntRange(0), default=20, show_default=True, help="Upgrades to versions that work.")
@click.option("--bad", type=click.IntRange(0), default=20, show_default=True, help="Upgrades to versions that do not.")
@click.option(
    "--rate", type=click.FloatRange(1), default=1000.0, show_default=True, help="Calls, and events, a second."
)
def main(good: int, bad: int, rate: float) -> None:
    """Upgrade a plugin again and again while it is called and listens, and count what anybody notices.

    Good and bad versions take turns; the bad ones fail in every step of an upgrade. Exit status 1 when a call fails, an
    event is lost or handled twice, or an upgrade does not go as it should.
    """
    with tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True) as folder:
        try:
            verdict = run(Path(folder), good, bad, rate, lambda text: click.echo(text, err=True))
        except TrialError as error:
            raise click.ClickException(str(error)) from error
    click.echo(_told(verdict))
    sys.exit(0 if verdict.clean else 1)


def _told(verdict: Verdict) -> str:
    failed = ", ".join(f"{number} {code}" for code, number in verdict.failures.items()) or "none"
    longest = f"longest {verdict.longest_secs * 1000:.0f} ms"
    lines = [
        f"{verdict.upgraded} upgrades, {verdict.rolled_back} rolled back, in {verdict.secs:.0f} s",
        f"calls: {verdict.begun}, failed: {failed}, {longest}, answered by {verdict.versions} versions",
        f"events: {verdict.begun}, lost: {verdict.lost}, doubled: {verdict.doubled}",
    ]
    return "\n".join([*lines, *verdict.wrong])
