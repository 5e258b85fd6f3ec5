"""The daemon process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from broker.daemon.daemon import Daemon
from broker.telemetry.logs import set_up_logging

if TYPE_CHECKING:
    from broker.config import Config

__all__ = ["Daemon", "run"]


def run(config: Config, *, demo: bool = False) -> int:
    """Run one broker until it is told to stop; returns the exit status, 0 for an orderly stop.

    Args:
        config: every setting.
        demo: also run the plugins that are shipped.

    Raises:
        HomeError: the home is unusable, another broker runs on it, or an address is taken.
    """
    set_up_logging(config.broker.log_level, config.broker.log_format)
    return asyncio.run(_live(config, demo))


async def _live(config: Config, demo: bool) -> int:
    daemon = Daemon(config, demo=demo)
    # Before anything else: a signal during the start must lead to an orderly stop, too.
    daemon.watch_signals()
    await daemon.start()
    await daemon.serve()
    return await daemon.stop()
