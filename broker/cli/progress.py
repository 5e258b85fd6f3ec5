"""Orders that may take a while: what goes on is told from the second on that nobody likes to wait in the dark."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from broker.cli.session import talk
from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import BusError

QUIET_SECS = 1.0
LOOK_SECS = 0.5
REMIND_SECS = 5.0


def order(home: Path, service: str, args: dict[str, Any], timeout: float) -> Any:
    """Call a service that changes plugins and return its answer; on standard error, tell how their states change."""
    answers: list[Any] = []

    async def work(bus: Bus) -> None:
        before = _states(await bus.call("$broker.status", {}, wait_ready=2.0))
        asked = asyncio.ensure_future(bus.call(service, args, timeout=timeout))
        await asyncio.wait({asked}, timeout=QUIET_SECS)
        if not asked.done():
            await _tell(bus, asked, before)
        answers.append(await asked)

    talk(home, work)
    return answers[0]


async def _tell(bus: Bus, asked: asyncio.Future[Any], known: dict[str, str]) -> None:
    """Print every change of state until the answer is there, and a reminder when nothing changes."""
    loop = asyncio.get_running_loop()
    began = told = loop.time()
    while not asked.done():
        try:
            states = _states(await bus.call("$broker.status", {}))
        except BusError:
            return  # the answer says why
        changed = {name: state for name, state in states.items() if known.get(name) != state}
        known = states
        if changed:
            told = loop.time()
            click.echo(f"  {loop.time() - began + QUIET_SECS:.0f} s: {_listed(changed)}", err=True)
        elif loop.time() - told > REMIND_SECS:
            told = loop.time()
            busy = {name: state for name, state in states.items() if state in _ON_THE_WAY}
            click.echo(f"  {loop.time() - began + QUIET_SECS:.0f} s: still {_listed(busy) or 'at it'}", err=True)
        await asyncio.wait({asked}, timeout=LOOK_SECS)


_ON_THE_WAY = ("waiting", "spawning", "registering", "initializing", "starting", "stopping", "backoff")


def _states(answer: dict[str, Any]) -> dict[str, str]:
    return {_title(each): each["state"] for each in answer["plugins"]}


def _title(plugin: dict[str, Any]) -> str:
    if plugin["state"] in ("standby", "leaving"):
        return f"{plugin['name']} {plugin['version']}"
    return f"{plugin['name']} {plugin['instance']}".rstrip()


def _listed(states: dict[str, str]) -> str:
    return ", ".join(f"{name} is {state}" for name, state in sorted(states.items()))
