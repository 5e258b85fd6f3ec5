"""The daemon process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.daemon.daemon import Daemon
from broker.shutdown.guard import Guard
from broker.telemetry.logs import set_up_logging

if TYPE_CHECKING:
    from broker.config import Config

__all__ = ["Daemon", "run"]


def run(config: Config, read: Callable[[], Config] | None = None, *, demo: bool = False) -> int:
    """Run one broker until it is told to stop; returns the exit status, 0 for an orderly stop.

    Args:
        config: every setting.
        read: reads them anew for a reload; from the same file and the environment when not given.
        demo: also run the plugins that are shipped.

    Raises:
        HomeError: the home is unusable, another broker runs on it, or an address is taken.
    """
    set_up_logging(config.broker.log_level, config.broker.log_format)
    # It outlives the loop: what keeps a broker from ending may also be a thread that asyncio waits for.
    with Guard(None) as guard:
        return asyncio.run(_live(config, read, demo, guard))


async def _live(config: Config, read: Callable[[], Config] | None, demo: bool, guard: Guard) -> int:
    daemon = Daemon(config, guard, read, demo=demo)
    await daemon.start()
    await daemon.serve()
    return await daemon.stop()
