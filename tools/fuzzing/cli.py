"""The command line of `tools/fuzz`."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".fuzz"
LONGEST = 4096  # bytes of an input
STUCK_SECS = 20  # for one input
MEMORY_MIB = 1024
LOWEST = 19  # nice

_FIGURE = re.compile(r"^stat::(\w+):\s+(\d+)$", re.MULTILINE)
_EDGES = re.compile(r"cov: (\d+) ft: (\d+)")


@click.group()
def main() -> None:
    """Look for bytes that break an invariant.

    What the targets promise stands at the top of their modules in tests/fuzzing.
    """


@main.command("list")
def show() -> None:
    """Show the targets and their invariants."""
    from tests.fuzzing.targets import TARGETS

    for target in TARGETS.values():
        click.echo(f"{target.name:<10} {target.invariant}")


@main.command()
@click.argument("names", nargs=-1, metavar="[TARGET]...")
@click.option("--seconds", type=click.IntRange(min=1), default=60, show_default=True, help="For each target.")
@click.option("--seed", type=click.IntRange(min=1), help="Of the fuzzer's choices [another one each time].")
def run(names: tuple[str, ...], seconds: int, seed: int | None) -> None:
    """Fuzz the TARGETs, by default all of them, one after the other, at the lowest priority.

    What is learnt is kept in .fuzz/TARGET/corpus and built upon the next time. An input that breaks the invariant is
    kept in .fuzz/TARGET/crashes, and shown by `tools/fuzz replay FILE`. Exits 1 when there is one.
    """
    from tests.fuzzing.targets import TARGETS

    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        raise click.BadParameter(f"there is no target {unknown[0]!r}: use some of {', '.join(TARGETS)}")
    failed = [name for name in names or TARGETS if not _fuzz(name, list(TARGETS[name].seeds()), seconds, seed)]
    sys.exit(1 if failed else 0)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--target", help="What it is for [the name of the folder that says so].")
def replay(file: Path, target: str | None) -> None:
    """Check one input once more, and show what is wrong with it."""
    from tests.fuzzing.targets import TARGETS

    name = target or next((part for part in reversed(file.resolve().parts[:-1]) if part in TARGETS), None)
    if name not in TARGETS:
        raise click.UsageError(f"say --target {'|'.join(TARGETS)}: no folder on the way to {file} does")
    TARGETS[name].check(file.read_bytes())
    click.echo(f"{file}: {name} keeps its invariant")


def _fuzz(name: str, seeds: list[bytes], seconds: int, seed: int | None) -> bool:
    """Fuzz one target; returns whether its invariant held."""
    corpus, crashes = STATE / name / "corpus", STATE / name / "crashes"
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for data in seeds:
        (corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    before, began = set(crashes.iterdir()), _cpu_secs()
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={crashes}/",
        f"-max_len={LONGEST}",
        f"-timeout={STUCK_SECS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        "-print_final_stats=1",
        *([f"-seed={seed}"] if seed else []),
        str(corpus),
    ]
    command = [sys.executable, "-P", "-m", "tools.fuzzing.worker", name, *options]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace", preexec_fn=_yield)
    found = sorted(set(crashes.iterdir()) - before)
    _report(name, done.stderr, _cpu_secs() - began)
    if done.returncode or found:
        click.echo(done.stderr[-4000:], err=True)
    for path in found:
        click.echo(f"{name}: an input breaks the invariant; again: tools/fuzz replay {path.relative_to(ROOT)}")
    return not (done.returncode or found)


def _yield() -> None:
    os.nice(LOWEST)


def _cpu_secs() -> float:
    """What ended processes of this one have used: at the lowest priority the time on the clock says little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(name: str, log: str, took: float) -> None:
    figures = {key: int(value) for key, value in _FIGURE.findall(log)}
    edges = _EDGES.findall(log)
    reached = f", {edges[-1][0]} branches reached" if edges else ""
    number = figures.get("number_of_executed_units", 0)
    click.echo(f"{name}: {number} inputs in {took:.0f} s of CPU ({number / took:.0f} a second){reached}")
