"""Requests: services that answer with the number of the call, and callers that know what they must get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plugin_sdk.calls import GRACE_SECS, SWEEP_SECS
from plugin_sdk.wire.deadlines import RESOLUTION
from plugin_sdk.wire.errors import BusError

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

LATEST = GRACE_SECS + SWEEP_SECS + 2 * RESOLUTION  # after its deadline a call has ended for its caller, come what may


@dataclass(frozen=True, slots=True)
class Order:
    """One call to be made: times in seconds; `mode` says what its handler does; `take` how many pieces are wanted."""

    number: int
    service: str
    mode: str
    secs: float
    timeout: float
    wait_ready: float = 0.0
    pieces: int = 0
    take: int = 0

    def args(self) -> dict[str, Any]:
        """What the handler is given."""
        stream = {"pieces": self.pieces} if self.pieces else {}
        return {"call": self.number, "mode": self.mode, "secs": self.secs, **stream}


class Desk:
    """The handlers of one process.

    Args:
        world: counts which calls have been run.
        process: whose they are.
    """

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def echo(self, call: int, mode: str, secs: float) -> dict[str, int]:
        """Answer with the number of the call."""
        self._begin(call)
        if secs:
            await asyncio.sleep(secs)
        if mode == "fail":
            raise ValueError("this handler fails")
        if mode == "nest" and self._process.is_open:
            inner = Order(self._world.next_call(), "back.echo", "ok", 0.0, 1.0)
            await make(self._world, self._process, inner)
        return {"call": call}

    async def lines(self, call: int, mode: str, secs: float, pieces: int) -> AsyncIterator[dict[str, int]]:
        """Answer with so many pieces."""
        self._begin(call)
        for piece in range(pieces):
            if mode == "fail" and piece == pieces // 2:
                raise ValueError("this handler fails in the middle")
            yield {"call": call, "piece": piece}
            if secs:
                await asyncio.sleep(secs)

    def _begin(self, call: int) -> None:
        if call in self._world.run_calls:
            self._world.fault(f"call {call} was run twice")
        self._world.run_calls.add(call)


async def make(world: World, process: Process, order: Order) -> None:
    """Make a call, and judge its outcome."""
    assert process.bus is not None, "the process has registered"
    assert process.peer is not None, "the process has registered"
    began, code = world.loop.time(), ""
    sent = began
    try:
        # As the call itself would do first: what happens to sessions before it goes out in one is not its business.
        await process.peer.until_open(order.timeout)
        sent = world.loop.time()
        left = max(order.timeout - (sent - began), 0.001)
        if order.pieces:
            await _stream(world, process, order, left)
        else:
            answer = await process.bus.call(order.service, order.args(), timeout=left, wait_ready=order.wait_ready)
            if answer != {"call": order.number} or order.mode == "fail":
                world.fault(f"call {order.number} ({order.mode}) was answered {answer}")
    except BusError as error:
        code = error.code
    ended = world.loop.time()
    _judge(world, process, order, code, ended - began)
    if not order.pieces and code == "timeout" and sent < process.session_lost < ended:
        world.fault(f"call {order.number} of {process.who} was not told that its session had ended")


async def _stream(world: World, process: Process, order: Order, timeout: float) -> None:
    assert process.bus is not None, "the process has registered"
    stream = process.bus.stream(order.service, order.args(), timeout=timeout, wait_ready=order.wait_ready)
    expected = 0
    async with aclosing(stream) as pieces:
        async for piece in pieces:
            if piece != {"call": order.number, "piece": expected}:
                world.fault(f"call {order.number} got {piece} where piece {expected} comes next")
            expected += 1
            if expected == order.take:
                return
            if order.take > order.pieces:
                await asyncio.sleep(order.secs)
    if expected != order.pieces or order.mode == "fail":
        world.fault(f"call {order.number} ({order.mode}) ended well after {expected} of {order.pieces} pieces")


def _judge(world: World, process: Process, order: Order, code: str, took: float) -> None:
    if not process.alive:
        return
    slow_reader = order.secs * order.pieces
    if took > order.timeout + LATEST + slow_reader:
        world.fault(f"call {order.number} of {process.who} took {took:.3f} s with a timeout of {order.timeout} s")
    if code == "timeout" and took < order.timeout - 0.0015:
        world.fault(f"call {order.number} of {process.who} timed out after {took:.3f} s instead of {order.timeout} s")
    if code == "failed" and order.mode == "ok":
        world.fault(f"call {order.number} failed, though its handler does not")
    if code.startswith("bad_") or code == "unsupported":
        world.fault(f"call {order.number} of {process.who} ended with {code}")
