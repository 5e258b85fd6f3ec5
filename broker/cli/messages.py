"""`broker pub`, `broker call`: the bus by hand."""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.session import dump_json, parse_json, talk
from plugin_sdk.client import Bus


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


def _headers(pairs: tuple[str, ...]) -> dict[str, str] | None:
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"header {pair!r} is not of the form NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs) or None
