"""One run of disorder: start everything, hurt it, repair it, and let the ledgers be balanced."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugin_sdk import BusError
from tools.disorder.balance_calls import check_requests, outcomes
from tools.disorder.balance_events import check_group, check_receipts, check_stretches
from tools.disorder.books import Book, read_books
from tools.disorder.cast import CAST, TEAM
from tools.disorder.driver import BROKER, DATABASE, Driver
from tools.disorder.home import Unsettled, until
from tools.disorder.spans import causeless, date_ends, unexplained
from tools.disorder.stage import HEARTBEAT_SECS, Stage
from tools.disorder.state import (
    MORE_DESCRIPTORS,
    MORE_MEMORY,
    Size,
    check_database,
    check_drops,
    check_processes,
    check_rows,
)

CALM_SECS = 2.0  # of traffic with everything alive, before and after the disorder
QUIET_SECS = 60.0
_DEFECTS = ("never retrieved", "never awaited", "Exception in callback", "Exception ignored", "a fault of its own")
LONG_RUN = 60  # seconds from which on the broker may also be frozen until everybody gives it up


@dataclass(slots=True)
class Report:
    """What a run has shown."""

    seconds: float
    seed: int
    violations: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = [f"chaos mesh, {self.seconds:g} s, seed {self.seed}", *(f"  {line}" for line in self.lines)]
        if self.violations:
            text.append(f"VIOLATED, {len(self.violations)} times, first: {self.violations[0]}")
            text += [f"  then: {each}" for each in self.violations[1:10]]
            text.append(f"again: tools/chaos mesh --seconds {self.seconds:g} --seed {self.seed} --keep DIR")
        else:
            text.append("every ledger balances")
        return "\n".join(text)


async def run_mesh(seconds: float, seed: int, keep: Path | None = None) -> Report:
    """Run and judge.

    Args:
        seconds: of disorder; starting, settling and judging come on top.
        seed: decides what happens.
        keep: an empty folder for ledgers and logs, when they shall be looked at afterwards.
    """
    report = Report(seconds, seed)
    with tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True) as temporary:
        stage = Stage(keep or Path(temporary), seed)
        try:
            await _play(stage, report)
        except Unsettled as error:
            report.violations.append(str(error))
        finally:
            stage.close()
    return report


async def _play(stage: Stage, report: Report) -> None:
    await stage.start()
    await asyncio.sleep(CALM_SECS)
    driver = Driver(stage, report.seed, long=report.seconds >= LONG_RUN)
    await driver.play(report.seconds)
    await stage.all_run()
    await asyncio.sleep(CALM_SECS)
    status, rows = await _settle(stage)
    books = {book.who: book for book in read_books(stage.folder / "ledgers")}
    every = list(books.values())
    report.violations += driver.faults
    report.violations += causeless(every, driver.record, round(3e6 * HEARTBEAT_SECS))
    report.violations += unexplained(every, driver.record, {row["pid"] for row in rows.values()})
    date_ends(every, driver.record)
    report.violations += _balance(books, driver)
    report.violations += check_rows(rows, books)
    report.violations += check_database(stage.sql(), rows)
    report.violations += check_drops(rows, books)
    report.violations += check_processes(stage, rows)
    report.lines += _figures(books, driver, status)
    await _end(stage, driver, report)


async def _settle(stage: Stage) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Have everybody stop asking and publishing, and return once nothing moves; the status and its rows."""
    (stage.folder / "quiet").touch()
    seen: dict[str, Any] = {}

    async def at_rest() -> bool:
        try:
            status, rows = await stage.status(), await stage.rows()
        except BusError:
            return False
        before = seen.get("ledgers")
        seen["ledgers"] = {path: path.stat().st_size for path in (stage.folder / "ledgers").iterdir()}
        seen["status"], seen["rows"] = status, rows
        waiting = any(row["waiting_bytes"] or row["state"] != "running" for row in rows.values())
        database = status["broker"]["database"]
        await asyncio.sleep(0.5)
        return before == seen["ledgers"] and not waiting and not database["pending"] and database["status"] == "up"

    await until(at_rest, QUIET_SECS, "there is quiet")
    return seen["status"], seen["rows"]


def _balance(books: dict[str, Book], driver: Driver) -> Iterator[str]:
    by_role: dict[str, list[Book]] = {"publisher": [], "subscriber": [], "server": [], "caller": []}
    for book in books.values():
        by_role[book.member.role].append(book)
    publishers = {book.who: book for book in by_role["publisher"]}
    for subscriber in by_role["subscriber"]:
        yield from check_receipts(publishers, subscriber)
        if subscriber.member.overflow == "block" and subscriber.member.group is None:
            for publisher in publishers.values():
                if publisher.member.topic == subscriber.member.topic:
                    yield from check_stretches(publisher, subscriber)
    team = [book for book in by_role["subscriber"] if book.member.group == TEAM]
    for publisher in publishers.values():
        if publisher.member.topic == team[0].member.topic:
            yield from check_group(publisher, team)
    yield from check_requests(by_role["caller"], by_role["server"], driver.record)


def _figures(books: dict[str, Book], driver: Driver, status: dict[str, Any]) -> Iterator[str]:
    published = sum(len(book.published) for book in books.values())
    received = sum(len(receipts) for book in books.values() for receipts in book.receipts.values())
    yield f"{len(books)} processes took part; {published} events published, {received} received"
    ends = outcomes([book for book in books.values() if book.member.role == "caller"])
    yield f"{sum(ends.values())} requests: " + ", ".join(f"{number} {name}" for name, number in ends.most_common())
    hurt = [
        f"{driver.count('kill') - driver.count('kill', BROKER) - driver.count('kill', DATABASE)} parties killed",
        f"{driver.count('freeze')} freezes",
        f"{driver.count('restart')} parties restarted",
        f"broker killed {driver.count('kill', BROKER)} and stopped {driver.count('end', BROKER)} times",
        f"database killed {driver.count('kill', DATABASE)} times",
        f"{driver.count('send_garbage')} bursts of garbage",
        f"{driver.count('read_slowly')} deaf readers",
        f"{driver.count('flood')} floods of connections",
    ]
    yield "; ".join(hurt)
    counters = status["broker"]["counters"]
    yield f"the last broker counted {counters['events_dropped']} drops, {counters['garbage']} bad frames"


async def _end(stage: Stage, driver: Driver, report: Report) -> None:
    """Compare the broker with a new one for the same parties, then stop everything and see that nothing is left."""
    old, opened = Size(*stage.home.size()), stage.home.descriptors()
    status = await stage.home.end()
    if status != 0:
        report.violations.append(f"the broker ended with status {status} after SIGTERM, though there was quiet")
    parties = {member.name for member in CAST}
    left = [row for row in await asyncio.to_thread(stage.sql) if row[0] in parties and row[1] != 0]
    report.violations += [f"t_plugin has {row} after the end" for row in left]
    await stage.start()
    await driver.burst()
    await asyncio.sleep(CALM_SECS)
    new = Size(*stage.home.size())
    report.lines.append(f"the broker had {old}; a new one after some garbage has {new}")
    if old.memory > new.memory + MORE_MEMORY or old.descriptors > new.descriptors + MORE_DESCRIPTORS:
        more = opened - stage.home.descriptors()
        report.violations.append(f"the broker has grown: {old}, a new one has {new}; more than that: {dict(more)}")
    await stage.end()
    try:
        await until(lambda: not stage.processes(), 10, "nothing is left")
    except Unsettled:
        names = [f"{each.pid} {' '.join(each.cmdline())}" for each in stage.processes()]
        report.violations.append(f"left after the end: {', '.join(names)}")
    report.violations += _defects(stage)


def _defects(stage: Stage) -> Iterator[str]:
    """Exceptions that nobody has expected, in any log; what a party failed to do while the broker was away is none."""
    for log in [stage.home.log, *stage.folder.glob("*.log"), *(stage.home.path / "logs").glob("*.log")]:
        text = log.read_text(errors="replace")
        for sign in ("Traceback", *_DEFECTS) if log == stage.home.log else _DEFECTS:
            if sign in text:
                where = text.index(sign)
                yield f"{log.name} has: {text[max(0, where - 300) : where + 1500]}"
