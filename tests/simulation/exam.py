"""Once everything works again: what is asked for now must succeed, and what is given up must end at once.

While failures go on nearly every outcome of a request is a legal one, so that one which is lost looks like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import aclosing, suppress

from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import BusError
from tests.simulation.actions import SUBJECTS
from tests.simulation.caller import Order
from tests.simulation.process import Process
from tests.simulation.world import World

AT_ONCE = 4  # one runs and the others wait, by the limits of the broker and of an instance that takes one at a time
PIECES = 15  # several windows
TIMEOUT = 10.0
SOON_SECS = 1.0  # several times as long as a frame is on its way


async def examine(world: World) -> None:
    """One process asks all services and publishes to every subject."""
    alive = [process for process in world.slots if process.is_open]
    if not alive:
        return
    process = world.chance.choice(alive)
    assert process.bus is not None, "it is open"
    for name in sorted(each.name for each in world.broker.router.requests.services):
        work = _stream if name.endswith(".lines") else _ask
        await _passes(world, process, f"asked {name}", work(world, process.bus, name))
        await _give_up(world, process, name)
    for subject in SUBJECTS:
        process.publisher.order(subject, 10, 1, retain=False)


async def _passes(world: World, process: Process, what: str, work: Awaitable[None]) -> None:
    try:
        await work
    except BusError as error:
        world.fault(f"{process.who} {what} when everything worked, and heard {error}")


async def _ask(world: World, bus: Bus, service: str) -> None:
    orders = [_order(world, service, secs=0.01) for _ in range(AT_ONCE)]
    answers = await asyncio.gather(*(bus.call(service, each.args(), timeout=TIMEOUT) for each in orders))
    if answers != [{"call": each.number} for each in orders]:
        world.fault(f"{service} answered {answers}")


async def _stream(world: World, bus: Bus, service: str) -> None:
    order = _order(world, service, pieces=PIECES)
    pieces = [piece async for piece in bus.stream(service, order.args(), timeout=TIMEOUT)]
    if pieces != [{"call": order.number, "piece": number} for number in range(PIECES)]:
        world.fault(f"{service} streamed {pieces}")


async def _give_up(world: World, process: Process, service: str) -> None:
    """Ask for more than anybody waits for."""
    assert process.bus is not None, "it is open"
    if service.endswith(".lines"):
        order = _order(world, service, secs=0.1, pieces=1000)
        with suppress(BusError):
            async with aclosing(process.bus.stream(service, order.args(), timeout=TIMEOUT)) as pieces:
                await anext(pieces)
    else:
        order = _order(world, service, secs=TIMEOUT)
        call = asyncio.create_task(process.bus.call(service, order.args(), timeout=TIMEOUT))
        await asyncio.sleep(SOON_SECS)
        call.cancel()
        with suppress(asyncio.CancelledError, BusError):
            await call
    await asyncio.sleep(SOON_SECS)
    if len(world.broker.router.requests):
        world.fault(f"{process.who} gave up its request to {service}, which goes on")


def _order(world: World, service: str, *, secs: float = 0.0, pieces: int = 0) -> Order:
    return Order(world.next_call(), service, "ok", secs, TIMEOUT, pieces=pieces)
