"""`broker pub`, `broker call`, `broker tap`: the bus by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from broker.cli.session import dump_json, parse_json, talk
from plugin_sdk.client import Bus
from plugin_sdk.events import Event
from plugin_sdk.wire.errors import BusError


@click.command()
@click.argument("subject")
@click.argument("data", default="null")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header; may be repeated.")
@click.option("--retain", is_flag=True, help="Keep it as the last value of its subject.")
@click.pass_obj
def pub(home: Path, subject: str, data: str, headers: tuple[str, ...], retain: bool) -> None:
    """Publish DATA (JSON, or - for standard input) to SUBJECT."""
    body, named = parse_json(data), _headers(headers)

    async def work(bus: Bus) -> None:
        await bus.publish(subject, body, headers=named, retain=retain)

    talk(home, work)
    click.echo(f"published {subject}")


@click.command()
@click.argument("service")
@click.argument("args", default="null")
@click.option("--timeout", type=click.FloatRange(0.001, 86_400), default=5.0, show_default=True, help="Seconds.")
@click.option("--wait-ready", type=click.FloatRange(0), default=0.0, help="Seconds to wait for the service to exist.")
@click.option("--stream", is_flag=True, help="Print the pieces of a streamed reply, one a line.")
@click.pass_obj
def call(home: Path, service: str, args: str, timeout: float, wait_ready: float, stream: bool) -> None:
    """Call SERVICE with ARGS (JSON, or - for standard input) and print its reply as JSON."""
    body = parse_json(args)

    async def work(bus: Bus) -> None:
        if not stream:
            reply = await bus.call(service, body, timeout=timeout, wait_ready=wait_ready)
            click.echo(dump_json(reply))
            return
        async for piece in bus.stream(service, body, timeout=timeout, wait_ready=wait_ready):
            click.echo(dump_json(piece))

    talk(home, work)


@click.command()
@click.argument("pattern")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: subject, headers, data.")
@click.option("--last", is_flag=True, help="Begin with the retained events.")
@click.pass_obj
def tap(home: Path, pattern: str, count: int | None, as_json: bool, last: bool) -> None:
    """Print the events that match PATTERN as they pass, for example 'user.>' (quote it for the shell)."""

    async def work(bus: Bus) -> None:
        # A slow terminal must not slow the mesh down.
        async with bus.subscribe(pattern, overflow="drop_oldest", max_pending=10_000, last=last) as events:
            click.echo(f"listening to {pattern}", err=True)
            watch = asyncio.ensure_future(_until_ended(bus))
            try:
                await _print_events(events, count, as_json, watch)
            finally:
                watch.cancel()

    talk(home, work)


async def _print_events(events: Any, count: int | None, as_json: bool, ended: asyncio.Future[None]) -> None:
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
        click.echo(_show(following.result(), as_json))
        left = None if left is None else left - 1


async def _until_ended(bus: Bus) -> None:
    error = await asyncio.shield(bus.ended)
    if error is not None:
        raise error


def _show(event: Event, as_json: bool) -> str:
    data: Any
    try:
        data = event.data
    except BusError:
        data = event.body
    if as_json:
        return dump_json({"subject": event.subject, "headers": event.headers, "data": data})
    return f"{event.subject}  {dump_json(data)}"


def _headers(pairs: tuple[str, ...]) -> dict[str, str] | None:
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"header {pair!r} is not of the form NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs) or None
