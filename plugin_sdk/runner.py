"""plugin.run(): a plugin as a process, from its environment to its exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from plugin_sdk.discovery import find_broker
from plugin_sdk.life import Life, Managed, assemble
from plugin_sdk.link import DealerLink, new_loop
from plugin_sdk.registration import was_refused
from plugin_sdk.wire.errors import BusError, RegistrationError

# sysexits.h: what a supervisor other than ours understands, too.
EX_OK, EX_UNAVAILABLE, EX_SOFTWARE, EX_NOPERM = 0, 69, 70, 77

STOP_SECS = 5.0  # a plugin that was told to stop may take so long to finish what it has in hand and to clean up

log = logging.getLogger("plugin_sdk")


def run(plugin: Managed) -> None:
    """Run a plugin until it is told to stop; ends the process with an exit code.

    Exit codes: 0 stopped in order, 69 the broker cannot be reached or is stopping, 70 stopping or cleanup failed, 77
    the broker refused us, or no key can be shown to it.
    """
    _set_up_logging()
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            code = runner.run(_main(plugin))
    except BusError as error:
        text = error.text if isinstance(error, RegistrationError) else str(error)
        print(f"ERROR {text}", file=sys.stderr)  # noqa: T201 - the last word of a process without a logger
        code = EX_NOPERM if was_refused(error) else EX_UNAVAILABLE
    _leave(plugin, code)


async def _main(plugin: Managed) -> int:
    asked = _watch_signals()
    address = find_broker(plugin=plugin.name)
    bus, life = assemble(plugin, DealerLink(address), address.token, address.endpoint)
    try:
        if not await _first(bus.open(), asked.wait()):
            return EX_OK
        await _first(life.finished.wait(), asked.wait(), asyncio.shield(bus.ended))
        code = await _clean_up(life)
    finally:
        await bus.close()
    error = bus.ended.result()
    if error is not None:
        raise error
    return code


async def _first(wanted: Coroutine[Any, Any, Any], *others: Any) -> bool:
    """Wait for the first of these and cancel the others; returns whether `wanted` is done, raises what it raised."""
    tasks = [asyncio.ensure_future(each) for each in (wanted, *others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    await asyncio.wait(tasks)
    if tasks[0].cancelled():
        return False
    tasks[0].result()
    return True


async def _clean_up(life: Life) -> int:
    """Leave in order, if the broker has not seen to that already."""
    try:
        async with asyncio.timeout(STOP_SECS):
            await life.cleanup()
    except Exception as error:
        log.error("cleanup failed: %s", str(error) or f"not done after {STOP_SECS:g} s", exc_info=error)
        return EX_SOFTWARE
    return EX_SOFTWARE if life.failed else EX_OK


def _watch_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets; a second one ends the process at once."""
    asked = asyncio.Event()

    def on_signal(number: int) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()

    def hand_over(number: int) -> None:
        loop.call_soon_threadsafe(on_signal, number)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, on_signal, number)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda caught, frame: hand_over(caught))
    return asked


def _set_up_logging() -> None:
    level = os.environ.get("BROKER_PLUGIN_LOG_LEVEL", "INFO").upper()
    known = level in logging.getLevelNamesMapping()
    logging.basicConfig(
        level=level if known else "INFO", format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    if not known:
        log.warning("BROKER_PLUGIN_LOG_LEVEL is %r, which is no level: using INFO", level)


def _leave(plugin: Managed, code: int) -> None:
    """End the process; Python itself would wait for ever for a thread that is stuck in a plain handler."""
    stuck = plugin.stuck()
    if stuck:
        log.error("leaving %s behind, still running in threads", ", ".join(stuck))
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or EX_SOFTWARE)
    sys.exit(code)
