"""Takes many plugins down in reverse order, each as soon as it may, within one limit for all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from math import inf

from broker.supervisor.unit import Unit

logger = logging.getLogger(__name__)


async def descend(
    units: Sequence[Unit],
    before: Callable[[Unit], Sequence[Unit]],
    stop_one: Callable[[Unit, float], Awaitable[str]],
    limit: float = inf,
) -> list[str]:
    """Stops units, each when those that come after it have stopped; what a slow one waits for, others do not.

    Args:
        units: in start order.
        before: what a unit comes after.
        stop_one: stops one within so many seconds and returns what could not be done.
        limit: seconds for all of them.

    Returns:
        What could not be done, a text each.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    depth: dict[Unit, int] = {}
    after: dict[Unit, list[Unit]] = {unit: [] for unit in units}
    for unit in units:
        earlier = [each for each in before(unit) if each in after]
        depth[unit] = 1 + max((depth[each] for each in earlier), default=0)
        for each in earlier:
            after[each].append(unit)
    tasks: dict[Unit, asyncio.Task[str]] = {}

    async def in_turn(unit: Unit) -> str:
        if after[unit]:
            await asyncio.wait([tasks[each] for each in after[unit]])
        try:
            # What is left is shared with those that must wait for this one.
            return await stop_one(unit, max(0.0, deadline - loop.time()) / depth[unit])
        except Exception as error:
            # A defect of ours; the others must come down all the same.
            logger.exception("stopping plugin %s failed", unit.plugin_id)
            return f"stopping plugin {unit.plugin_id!r} failed: {error!r}"

    for unit in reversed(units):
        tasks[unit] = asyncio.create_task(in_turn(unit))
    return [text for text in await asyncio.gather(*tasks.values()) if text]
