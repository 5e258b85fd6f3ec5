"""`broker tap`: watch events pass."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import click

from broker.cli.conditions import Condition, parse_condition
from broker.cli.figures import several
from broker.cli.session import dump_json, printable, talk
from plugin_sdk.client import Bus
from plugin_sdk.events import Event
from plugin_sdk.wire.errors import BusError

TERMINAL_RATE = 100.0  # events per second that a person can still see pass
MAX_PENDING = 10_000
DROPS_SECS = 5.0  # between two looks at what the broker dropped


@click.command()
@click.argument("pattern")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: time, subject, headers, data.")
@click.option("--last", is_flag=True, help="Begin with the retained events.")
@click.option("--headers", is_flag=True, help="Show headers, too.")
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Only events for which it holds, such as priority=high, order.total>100, user~ada or headers.message-id=7;"
    " of several all must hold.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    help=f"Show so many events per second at most and count the others; 0 shows all."
    f" Default: {TERMINAL_RATE:.0f} on a terminal, else all.",
)
@click.pass_obj
def tap(
    home: Path,
    pattern: str,
    count: int | None,
    as_json: bool,
    last: bool,
    headers: bool,
    conditions: tuple[str, ...],
    rate: float | None,
) -> None:
    """Print the events that match PATTERN as they pass, for example 'user.>' (quote it for the shell)."""
    if rate is None:
        rate = TERMINAL_RATE if sys.stdout.isatty() else 0.0
    printer = _Printer([parse_condition(text) for text in conditions], as_json, headers, rate)

    async def work(bus: Bus) -> None:
        # A slow terminal must not slow the mesh down.
        async with bus.subscribe(pattern, overflow="drop_oldest", max_pending=MAX_PENDING, last=last) as events:
            click.echo(f"listening to {pattern}", err=True)
            tasks = [asyncio.ensure_future(_until_ended(bus)), asyncio.ensure_future(printer.tell_now_and_then(bus))]
            try:
                await _print_events(events, count, printer, tasks[0])
            finally:
                for task in tasks:
                    task.cancel()

    try:
        talk(home, work)
    finally:
        printer.tell_skipped()


class _Printer:
    """Prints events as far as they are wanted, and counts those that are too many to be shown."""

    def __init__(self, conditions: list[Condition], as_json: bool, headers: bool, rate: float) -> None:
        self._conditions = conditions
        self._as_json = as_json
        self._headers = headers
        self._rate = rate
        self._room = rate
        self._filled = time.monotonic()
        self._skipped = 0
        self._dropped = 0

    def show(self, event: Event) -> bool:
        """Print an event; returns whether it was one that counts."""
        data, headers = _content(event)
        if not all(condition.holds(data, headers) for condition in self._conditions):
            return False
        if not self._may_show():
            self._skipped += 1
            return True
        if self._as_json:
            line = {"time": time.time(), "subject": event.subject, "headers": headers, "data": data}
            click.echo(dump_json(line))
        else:
            self._show_pretty(event.subject, headers, data)
        return True

    def tell_skipped(self) -> None:
        """Say how many events were not shown since this was said last."""
        if self._skipped:
            click.secho(f"… {several(self._skipped, 'more event')} not shown (--rate)", err=True, fg="yellow")
            self._skipped = 0

    async def tell_now_and_then(self, bus: Bus) -> None:
        """Say each second what was skipped, and what the broker dropped because this is too slow."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            self.tell_skipped()
            if time.monotonic() - looked >= DROPS_SECS:
                looked = time.monotonic()
                await self._tell_dropped(bus)

    async def _tell_dropped(self, bus: Bus) -> None:
        try:
            sessions = await bus.call("$broker.sessions", {})
        except BusError:
            return
        dropped = next((each.get("dropped", 0) for each in sessions if each["session"] == bus.session), 0)
        if dropped > self._dropped:
            number = several(dropped - self._dropped, "event")
            click.secho(f"… the broker dropped {number}: too fast for this terminal", err=True, fg="yellow")
        self._dropped = dropped

    def _may_show(self) -> bool:
        if not self._rate:
            return True
        now = time.monotonic()
        self._room = min(self._rate, self._room + (now - self._filled) * self._rate)
        self._filled = now
        if self._room < 1:
            return False
        self._room -= 1
        return True

    def _show_pretty(self, subject: str, headers: dict[str, str], data: Any) -> None:
        now = time.time()
        clock = f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now % 1 * 1000):03d}"
        click.echo(f"{click.style(clock, dim=True)}  {click.style(subject, fg='cyan', bold=True)}  {dump_json(data)}")
        if self._headers:
            for name, value in sorted(headers.items()):
                click.secho(printable(f"    {name}: {value}").replace("\n", " "), dim=True)


async def _print_events(events: Any, count: int | None, printer: _Printer, ended: asyncio.Future[None]) -> None:
    left = count
    while left is None or left > 0:
        following = asyncio.ensure_future(anext(events))
        try:
            await asyncio.wait([following, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrived = following.done()
            # Ctrl-C ends the subscription, too; what still waited for an event would then fail unheard.
            following.cancel()
        if not arrived:
            ended.result()
            return
        counts = printer.show(following.result())
        left = left - 1 if left is not None and counts else left


async def _until_ended(bus: Bus) -> None:
    error = await asyncio.shield(bus.ended)
    if error is not None:
        raise error


def _content(event: Event) -> tuple[Any, dict[str, str]]:
    """Data and headers of an event; the broker does not check either of them."""
    try:
        headers = event.headers
    except BusError as error:
        return f"(malformed: {error.text})", {}
    try:
        return event.data, headers
    except BusError:
        return event.body, headers
