"""Plugins are killed, stopped, started, reloaded, disabled and upgraded at random; then everything must agree."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from plugin_sdk import connect
from tools.disorder.home import Home, Unsettled, until
from tools.disorder.orders import NEEDS, Orders, write_plugin
from tools.disorder.stage import environment_of
from tools.upgrading import versions
from tools.upgrading.trial import handled, traffic

RATE = 200.0  # calls, and events, a second, of the plugin that is upgraded under traffic
WARM_SECS = 15.0  # of orders, after which the broker's size is taken for the first time
SETTLE_SECS = 60.0
MIB = 1 << 20
MORE_MEMORY, MORE_DESCRIPTORS = 8 * MIB, 2


@dataclass(slots=True)
class Story:
    """What a run has shown; sizes are memory in bytes and descriptors of the broker."""

    seconds: float
    seed: int
    given: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    size_before: tuple[int, int] = (0, 0)
    size_after: tuple[int, int] = (0, 0)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        orders = ", ".join(f"{number} {kind}" for kind, number in sorted(self.given.items()))
        memory = [f"{size[0] / MIB:.1f} MiB and {size[1]} descriptors" for size in (self.size_before, self.size_after)]
        lines = [
            f"chaos lifecycle, {self.seconds:g} s, seed {self.seed}",
            f"  orders: {orders}",
            f"  {self.calls} calls and as many events under upgrades",
            f"  the broker had {memory[0]}, then {memory[1]}",
        ]
        if self.violations:
            return "\n".join([*lines, *(f"VIOLATED: {each}" for each in self.violations)])
        return "\n".join(
            [*lines, "SQL, status and the process table agree, nothing is left, no call and no event is lost"]
        )


async def run_lifecycle(seconds: float, seed: int) -> Story:
    """Run and judge.

    Args:
        seconds: of orders; starting, settling and judging come on top.
        seed: decides what is ordered.
    """
    story = Story(seconds, seed)
    with tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True) as temporary:
        home = Home(Path(temporary) / "home")
        for name in NEEDS:
            write_plugin(home.path / "plugins" / name, name, "1.0")
        versions.write(home.path / "plugins" / versions.NAME, "1.0")
        try:
            await home.start()
            await _play(home, Path(temporary) / "versions", story)
            await _end(home, story)
        except Unsettled as error:
            story.violations.append(str(error))
        finally:
            home.close()
    return story


async def _play(home: Home, place: Path, story: Story) -> None:
    await until(lambda: _all_run(home), SETTLE_SECS, "all plugins run")
    async with connect(home=home.path, name="operator") as bus:
        orders = Orders(bus, home.path, place, story.seed)
        with traffic(home.path, RATE) as process:
            warm = min(WARM_SECS, story.seconds / 2)
            await orders.play(warm)
            await until(lambda: _all_run(home), SETTLE_SECS, "all plugins run again after the first orders")
            story.size_before = home.size()
            await orders.play(story.seconds - warm)
            await until(lambda: _all_run(home), SETTLE_SECS, "all plugins run again")
            story.size_after = home.size()
            report = json.loads((await asyncio.to_thread(process.communicate, timeout=SETTLE_SECS))[0])
    story.given, story.violations = orders.given, orders.faults
    story.calls = report["begun"]
    story.violations += [f"{number} calls failed: {code}" for code, number in report["failures"].items()]
    events = await asyncio.to_thread(handled, home.path, story.calls)
    lost, doubled = story.calls - len(events), sum(number > 1 for number in events.values())
    if lost or doubled:
        story.violations.append(f"{lost} events were lost, {doubled} handled twice, of {story.calls}")
    rows = {row["name"]: row for row in (await home.ask("$broker.status"))["plugins"]}
    story.violations += [*_compare(home, rows), *_processes(home, rows)]
    memory, descriptors = (after - before for before, after in zip(story.size_before, story.size_after, strict=True))
    if memory > MORE_MEMORY or descriptors > MORE_DESCRIPTORS:
        story.violations.append(f"the broker grew by {memory / MIB:.1f} MiB and {descriptors} descriptors")


async def _end(home: Home, story: Story) -> None:
    status = await home.end()
    if status != 0:
        story.violations.append(f"the broker ended with {status}")
    story.violations += [f"process {each.pid} outlived the broker: {each.name()}" for each in _of(home)]
    found = {name: (number, error) for name, number, error in _table(home)}
    if wrong := {name: row for name, row in found.items() if row != (0, None)}:
        story.violations.append(f"t_plugin after the end: {wrong}")


async def _all_run(home: Home) -> bool:
    """Whether every plugin runs and the database has all that was written."""
    status = await home.ask("$broker.status")
    running = {
        row["name"] for row in status["plugins"] if (row["state"], row["registration"]) == ("running", "registered")
    }
    return running >= {*NEEDS, versions.NAME} and not status["broker"]["database"]["pending"]


def _compare(home: Home, rows: dict[str, Any]) -> Iterator[str]:
    table = {name: (status, error) for name, status, error in _table(home)}
    for name in (*NEEDS, versions.NAME):
        if table.get(name) != (2, None):
            yield f"t_plugin has {table.get(name)} for {name}, which is {rows[name]['state']}"


def _processes(home: Home, rows: dict[str, Any]) -> Iterator[str]:
    """The process table: each plugin once, nothing that nobody knows, no zombie of the broker."""
    known = {row["pid"] for row in rows.values()}
    living = {each.pid for each in _of(home) if "BROKER_PLUGIN=" in environment_of(each.pid)}
    if living != known:
        yield f"the status knows the processes {sorted(known)}, there are {sorted(living)}"
    for each in psutil.Process(home.pid).children(recursive=True):
        if each.status() == psutil.STATUS_ZOMBIE:
            yield f"process {each.pid} is a zombie: {each.name()}, child of {each.ppid()}"


def _of(home: Home) -> list[psutil.Process]:
    """The processes of the mesh that run: the broker, its plugins, and whatever they left."""
    mark = f"BROKER_HOME={home.path}\0"
    return [each for each in psutil.process_iter() if mark in environment_of(each.pid) + "\0"]


def _table(home: Home) -> list[tuple[str, int, str | None]]:
    with closing(sqlite3.connect(home.path / "broker.db")) as database:
        return database.execute("SELECT plugin_id, register_status, register_error FROM t_plugin").fetchall()
