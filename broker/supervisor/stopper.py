"""How a plugin comes down: cleanup command, SIGTERM, the rest of its time, SIGKILL, and a look whether all is gone."""

import asyncio
import logging
import signal
from typing import Any

from broker import tracepoints
from broker.supervisor.errors import CommandError
from broker.supervisor.ports import Mesh
from broker.supervisor.process import Process
from broker.supervisor.states import Trigger
from broker.supervisor.timing import Timing
from broker.supervisor.unit import Unit
from plugin_sdk.wire import conventions as c

logger = logging.getLogger(__name__)

# What is kept back from a limit, so that SIGKILL comes early enough for its success to be seen within the limit.
_MARGIN = 0.25


class Stopper:
    """Stops plugins that have something to stop: a process, or a session of a process that was started by hand."""

    def __init__(self, mesh: Mesh, timing: Timing) -> None:
        self._mesh = mesh
        self._timing = timing
        self.cleanups = 0
        self.cleanups_failed = 0

    async def bring_down(self, unit: Unit, limit: float) -> str:
        """Takes an active plugin to STOPPED.

        A process that was started by hand gets the commands, never a signal.

        Args:
            limit: seconds until it must be over, if that is less than the plugin's own time.

        Returns:
            What could not be done, or an empty text.
        """
        with tracepoints.span("plugin.stop", {c.PLUGIN: unit.plugin_id}):
            return await self._bring_down(unit, limit)

    async def _bring_down(self, unit: Unit, limit: float) -> str:
        unit.move(Trigger.STOP)
        loop = asyncio.get_running_loop()
        began = loop.time()
        times = self._timing.of(unit.manifest)
        kill_at = loop.time() + max(0.0, min(times.stop, limit - _MARGIN))
        ask_until = loop.time() + min(times.cleanup, kill_at - loop.time())
        asked = [self._ask(unit, None, session, ask_until) for session in unit.further]
        if unit.session is not None:
            asked.append(self._ask(unit, unit.process, unit.session, ask_until))
        await asyncio.gather(*asked)
        left = ""
        if unit.process:
            left = await self._end(unit, unit.process, kill_at - loop.time(), began)
        elif asked:
            logger.info("plugin %s, started by hand, was told to stop, %.2f s", unit.plugin_id, loop.time() - began)
        unit.move(Trigger.GONE)
        return left

    async def _ask(self, unit: Unit, process: Process | None, session: int, until: float) -> None:
        """Asks politely: `$plugin.stop` ends the work, `$plugin.cleanup` what it held; both share the time."""
        loop = asyncio.get_running_loop()
        for step in ("stop", "cleanup"):
            left = process is not None and process.exited.done()
            complaint = await self._command(process, session, step, until - loop.time())
            if step == "cleanup" and (complaint or not left):
                self.cleanups += 1
                self.cleanups_failed += bool(complaint)
            if complaint:
                logger.warning("cleanup failed for %s: %s: %s", unit.plugin_id, step, complaint)
        if process:
            # It is about to end by itself; a signal now would only cut short its last lines. No time is left for this
            # when a command has used it up.
            await asyncio.wait({process.exited}, timeout=min(self._timing.settle, max(0.0, until - loop.time())))

    async def _command(self, process: Process | None, session: int, step: str, limit: float) -> str:
        """Sends one command; returns why it failed, or an empty text."""
        if process and process.exited.done():
            return ""
        if limit <= 0:
            return "no time was left for it"
        task = asyncio.ensure_future(self._mesh.command(session, f"$plugin.{step}", {}, limit))
        waits: set[asyncio.Future[Any]] = {task, process.exited} if process else {task}
        try:
            # The bus keeps the limit; this one, a little longer, is for a bus that does not.
            await asyncio.wait(waits, timeout=limit + _MARGIN, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            elif not (process and process.exited.done()):
                return f"not done within {limit:.1f} s"
            elif not process.exited.result().clean:
                return f"the process {process.exited.result()} instead of an answer"
        except CommandError as error:
            return f"{error.code}: {error.text}"
        finally:
            task.cancel()
        return ""

    async def _end(self, unit: Unit, process: Process, grace: float, began: float) -> str:
        step = "the cleanup command" if process.exited.done() else "SIGTERM"
        # At least a moment, so that a plugin that used up its time for cleanup still ends by itself if it can.
        grace = max(_MARGIN, grace)
        how = await process.end(grace)
        text = str(how)
        level = logging.INFO
        unit.was_killed = how.signal == signal.SIGKILL
        if unit.was_killed:
            text += f": it did not end within {grace:.1f} s of SIGTERM"
            step, level = "SIGKILL", logging.WARNING
        took = asyncio.get_running_loop().time() - began
        logger.log(level, "plugin %s %s; stopped in %.2f s, the last step was %s", unit.plugin_id, text, took, step)
        self._mesh.forget(process.token)
        unit.ended(text)
        return f"plugin {unit.plugin_id!r} {how}" if how.alive else ""
