"""How a plugin comes up: spawn, register, initialize, start; each step within its time, the whole up to three times."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from broker import tracepoints
from broker.supervisor.errors import FINAL_CODES, CommandError, SupervisorError
from broker.supervisor.keeping import STOP
from broker.supervisor.ports import Mesh
from broker.supervisor.process import Process, Surroundings
from broker.supervisor.slots import Slots
from broker.supervisor.spawner import Spawner
from broker.supervisor.states import Cause, Desired, Trigger
from broker.supervisor.timing import Timing
from broker.supervisor.unit import Unit
from plugin_sdk.wire import conventions as c

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class StepError(Exception):
    """A step of a start failed.

    Args:
        text: which step, and why.
        cause: of which kind that is.
    """

    def __init__(self, text: str, cause: Cause = Cause.START) -> None:
        super().__init__(text)
        self.cause = cause


class StepFailed(StepError):
    """A step of a start failed; another attempt may succeed."""


class StepRefused(StepError):
    """A step of a start failed, and would again: a person has to change something first."""


class StartFailed(Exception):
    """A plugin did not come up.

    Args:
        text: the whole story: one sentence, then every attempt, then what the plugin wrote last.
        final: whether trying again, even later, cannot help.
        cause: of which kind the last failure is.
    """

    def __init__(self, text: str, final: bool, cause: Cause) -> None:
        super().__init__(text)
        self.final = final
        self.cause = cause


class Superseded(Exception):
    """Somebody has decided otherwise meanwhile; what was going on must not be."""


class Starter:
    """Starts plugins, at most `slots` of them at the same time.

    Args:
        slots: bounds how many are on their way up; those that run do not count.
        mount: the name under which a plugin serves.
    """

    def __init__(
        self,
        mesh: Mesh,
        spawner: Spawner,
        around: Surroundings,
        timing: Timing,
        slots: Slots,
        mount: Callable[[str], str],
    ) -> None:
        self._mesh = mesh
        self._spawner = spawner
        self._around = around
        self._timing = timing
        self._slots = slots
        self._mount = mount

    def set_step(self, secs: float) -> None:
        """Changes what each step may take, for those that begin from now on."""
        self._timing = replace(self._timing, step=secs)

    async def bring_up(self, unit: Unit, generation: int) -> None:
        """Takes a waiting plugin to RUNNING.

        Raises:
            StartFailed: no attempt succeeded; the process is gone and the plugin in BACKOFF.
            Superseded: it is not wanted any more.
        """
        met: list[str] = []
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._timing.attempts),
            wait=wait_exponential(self._timing.retry_first, self._timing.retry_longest)
            + wait_random(0, self._timing.retry_first),
            # Never retry_if_not_exception_type: it would swallow cancellation (tenacity#529).
            retry=retry_if_exception_type(StepFailed),
            reraise=True,
        )
        try:
            with tracepoints.span("plugin.start", {c.PLUGIN: unit.plugin_id}):
                async for attempt in attempts:
                    with attempt, tracepoints.span("attempt", {c.ATTEMPT: len(met) + 1}):
                        await self._attempt(unit, generation, met)
        except (StepFailed, StepRefused) as error:
            raise StartFailed(_story(unit, met), isinstance(error, StepRefused), error.cause) from None

    async def prepare(self, unit: Unit, session: int) -> None:
        """Takes a registered plugin through initialize and start.

        Raises:
            StepFailed: it answered with an error, too late, or not at all.
            StepRefused: it said itself that trying again cannot help.
        """
        unit.attach(session)
        await self._initialize(unit, unit.process, session)
        unit.move(Trigger.INITIALIZED)
        await self._start(unit, unit.process, session)
        unit.move(Trigger.STARTED)

    async def greet(self, unit: Unit, session: int) -> None:
        """Initializes and starts a further process of a plugin, which changes nothing in its state; raises alike."""
        await self._initialize(unit, None, session)
        await self._start(unit, None, session)

    async def again(self, unit: Unit, process: Process) -> None:
        """Takes a plugin whose session was lost through a new registration; raises like prepare()."""
        unit.move(Trigger.LOST)
        session = await self._register(unit, process)
        unit.move(Trigger.REGISTERED)
        await self.prepare(unit, session)

    async def discard(self, unit: Unit) -> None:
        """Ends the process of a plugin that did not come up."""
        if process := unit.process:
            how = await process.end(self._timing.abort)
            unit.last_words = process.tail()
            self._mesh.forget(process.token)
            unit.ended(str(how))

    async def _attempt(self, unit: Unit, generation: int, met: list[str]) -> None:
        unit.attempts = len(met) + 1
        if met:
            unit.move(Trigger.START)
        async with self._slots:
            unit.move(Trigger.SLOT)
            try:
                process = await self._spawn(unit, generation)
                unit.move(Trigger.SPAWNED)
                session = await self._register(unit, process)
                unit.move(Trigger.REGISTERED)
                await self.prepare(unit, session)
            except (StepFailed, StepRefused) as error:
                met.append(str(error))
                await self._note_failure(unit, f"attempt {len(met)}: {error}")
                raise

    async def _note_failure(self, unit: Unit, text: str) -> None:
        await self.discard(unit)
        unit.move(Trigger.RETRY, text)
        logger.warning("plugin %s, %s", unit.plugin_id, text)

    async def _spawn(self, unit: Unit, generation: int) -> Process:
        # No await between this check and the order to fork, or a stop could slip in between.
        if unit.generation != generation or unit.desired is not Desired.RUNNING or not (unit.installed and unit.log):
            raise Superseded
        unit.last_words = []
        try:
            mount = self._mount(unit.plugin_id)
            process = Process(unit.installed, generation, self._around, self._spawner, unit.log, mount)
        except SupervisorError as error:
            raise StepRefused(f"spawn: {error.text}") from None
        except OSError as error:
            raise StepFailed(f"spawn: no process could be made for it: {error.strerror}") from None
        unit.process = process
        pid = await self._step(process, "spawn", _until_forked(process), self._timing.step)
        asked = unit.manifest.permissions if unit.manifest else None
        routed, version = not unit.standby, unit.version
        self._mesh.expect(unit.plugin_id, process.token, pid, asked, mount=mount, routed=routed, version=version)
        process.go()
        return process

    async def _register(self, unit: Unit, process: Process) -> int:
        waiting = self._mesh.registered(unit.plugin_id, process.token)
        try:
            return await self._step(process, "register", waiting, self._timing.of(unit.manifest).register)
        except StepFailed as error:
            refusals = Counter(self._mesh.refusals(unit.plugin_id))
            if not refusals:
                raise
            told = "; ".join(text if times == 1 else f"{times} times {text}" for text, times in refusals.items())
            raise StepFailed(f"{error}; the broker refused its registration: {told}", error.cause) from None

    async def _initialize(self, unit: Unit, process: Process | None, session: int) -> None:
        body = {"config": unit.config, "enabled": unit.enabled}
        await self._command(process, session, "initialize", body, self._timing.of(unit.manifest).initialize)

    async def _start(self, unit: Unit, process: Process | None, session: int) -> None:
        await self._command(process, session, "start", {}, self._timing.of(unit.manifest).start)

    async def _command(self, process: Process | None, session: int, step: str, body: object, timeout: float) -> None:
        command = self._mesh.command(session, f"$plugin.{step}", body, timeout)
        try:
            # The bus keeps the time limit; this one, a little longer, is for a bus that does not.
            await self._step(process, step, command, timeout + 1.0)
        except CommandError as error:
            if error.code == "lost" and process:
                await self._tell_the_end(process, step)
            refused = StepRefused if error.code in FINAL_CODES else StepFailed
            raise refused(f"{step}: {error.code}: {error.text}") from None

    async def _tell_the_end(self, process: Process, step: str) -> None:
        """A session is often lost because its process ends, and then that is the better story."""
        await asyncio.wait({process.exited}, timeout=self._timing.settle)
        if process.exited.done():
            raise _end_of(process, step)

    async def _step(self, process: Process | None, step: str, work: Coroutine[Any, Any, _T], timeout: float) -> _T:
        """Runs one step until it is done, its time is over, or the process ends."""
        with tracepoints.span(step):
            return await self._run_step(process, step, work, timeout)

    async def _run_step(self, process: Process | None, step: str, work: Coroutine[Any, Any, _T], timeout: float) -> _T:
        task = asyncio.ensure_future(work)
        # Nobody else looks at it; without this, a late error would be reported as never retrieved.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        waits: set[asyncio.Future[Any]] = {task, process.exited, process.keeping.ordered} if process else {task}
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not task.cancelled():
                return task.result()
        finally:
            task.cancel()
        if process and (process.exited.done() or process.keeping.ordered.done()):
            raise _end_of(process, step)
        raise StepFailed(f"{step}: not done within {timeout:g} s")


def _end_of(process: Process, step: str) -> StepFailed | StepRefused:
    """Why a step cannot go on: the process has ended, or has to because of a limit."""
    how = process.exited.result() if process.exited.done() else None
    story = f"the process {how.told(f' after {process.age():.2f} s')}" if how else ""
    if process.keeping.ordered.done():
        excess = process.keeping.ordered.result()
        error = StepRefused if excess.over == STOP else StepFailed
        return error(f"{step}: {story or f'it {excess.text} (over: {excess.over})'}", Cause.LIMIT)
    if how and how.never_ran:
        return StepRefused(f"{step}: {how}")
    return StepFailed(f"{step}: {story}")


async def _until_forked(process: Process) -> int:
    # Shielded, because the future is the process's own and outlives a wait for it that is given up.
    return await asyncio.shield(process.spawned)


def _story(unit: Unit, met: list[str]) -> str:
    same = len(set(met)) == 1
    count = f" in {len(met)} attempts" if len(met) > 1 else ""
    lines = [f"plugin {unit.plugin_id!r} did not start{count}: {met[-1]}"]
    if not same:
        lines += [f"  attempt {number}: {text}" for number, text in enumerate(met, start=1)]
    return unit.with_last_words("\n".join(lines))
