"""Keeps one plugin running: brings it up after what it needs, watches it, and starts it again as its policy says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from broker.supervisor.keeping import STOP
from broker.supervisor.plan import Problem
from broker.supervisor.process import Process
from broker.supervisor.restart import GiveUp, Leave
from broker.supervisor.starter import Starter, StartFailed, StepFailed, StepRefused, Superseded
from broker.supervisor.states import Cause, State, Trigger
from broker.supervisor.timing import Timing
from broker.supervisor.unit import Unit

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended; `failed` unless with exit status 0, `final` when it was over a limit and is to stay down."""

    text: str
    failed: bool
    final: bool = False


@dataclass(frozen=True, slots=True)
class Before:
    """The plugins that one comes after, as they are now.

    Args:
        all: to be waited for until they have settled.
        required: those of them that must be running then.
    """

    all: Sequence[Unit] = ()
    required: Sequence[Unit] = ()


class Blocked(Exception):
    """A plugin cannot start because another one does not run."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


class Keeper:
    """The life of plugins while they are wanted; each life is one task, and to cancel it is to take over.

    Args:
        before: what a plugin comes after.
        came_up: called whenever one has come up.
        went_down: called whenever a run has ended that was not meant to.
        refusal: why a plugin must not be started; an empty text when it may.
        clock: monotonic seconds.
        dice: random numbers from 0 up to 1.
    """

    def __init__(
        self,
        starter: Starter,
        timing: Timing,
        before: Callable[[Unit], Before],
        came_up: Callable[[Unit], None],
        went_down: Callable[[Unit], object],
        refusal: Callable[[Unit], Awaitable[str]],
        clock: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        self._starter = starter
        self._timing = timing
        self._before = before
        self._came_up = came_up
        self._went_down = went_down
        self._refusal = refusal
        self._clock = clock
        self._dice = dice

    async def keep(self, unit: Unit, generation: int) -> None:
        """Lives the life of a managed plugin, from WAITING until it is over."""
        await self._live(unit, self._rounds(unit, generation))

    async def keep_on(self, unit: Unit) -> None:
        """Lives on the life of a managed plugin that runs already, or whose process has just ended."""
        await self._live(unit, self._rounds(unit, unit.generation, running=True))

    async def accompany(self, unit: Unit, session: int) -> None:
        """Lives the life of a plugin that was started by hand, from its registration to its end."""
        await self._live(unit, self._visits(unit, session))

    async def greet(self, unit: Unit, session: int) -> bool:
        """Gives a further process of a plugin what it needs to begin; returns whether it has begun."""
        try:
            await self._starter.greet(unit, session)
        except (StepFailed, StepRefused) as error:
            logger.error("a further process of plugin %s did not start: %s", unit.plugin_id, error)
            return False
        return True

    async def _live(self, unit: Unit, life: Coroutine[Any, Any, None]) -> None:
        try:
            await life
        except Blocked as blocked:
            unit.fail(str(blocked), Cause.DEPENDENCY, blocked.problem)
        except Superseded:
            return
        except Exception as error:
            # A defect of ours must not look like a plugin that is still coming.
            logger.exception("supervising plugin %s failed", unit.plugin_id)
            await self._starter.discard(unit)
            text = f"supervising plugin {unit.plugin_id!r} failed: {error!r}; this is a defect of the broker"
            unit.fail(text, Cause.DEFECT)

    async def _visits(self, unit: Unit, session: int) -> None:
        await self._visit(unit, session)
        # A process that was killed and started anew may have come before its end was noted, as a further one.
        while begun := [each for each, greeting in unit.further.items() if not greeting.done() or greeting.result()]:
            session = begun[0]
            if not await asyncio.shield(unit.further[session]) or session not in unit.further:
                continue
            del unit.further[session]
            unit.attach(session)
            for trigger in (Trigger.ADOPT, Trigger.INITIALIZED, Trigger.STARTED):
                unit.move(trigger)
            await self._stay(unit)

    async def _visit(self, unit: Unit, session: int) -> None:
        try:
            await self._starter.prepare(unit, session)
        except (StepFailed, StepRefused) as error:
            unit.fail(f"plugin {unit.plugin_id!r}, started by hand, did not start: {error}", Cause.START)
            return
        await self._stay(unit)

    async def _stay(self, unit: Unit) -> None:
        self._has_come_up(unit)
        assert unit.lost is not None
        reason = await asyncio.shield(unit.lost)
        logger.info("plugin %s, started by hand, is gone: %s", unit.plugin_id, reason)
        unit.ended(reason)
        unit.move(Trigger.EXITED)

    async def _rounds(self, unit: Unit, generation: int, *, running: bool = False) -> None:
        delay = await (self._run(unit) if running else self._one_round(unit, generation))
        while delay is not None:
            unit.retry_at = self._clock() + delay
            await asyncio.sleep(delay)
            unit.move(Trigger.START)
            delay = await self._one_round(unit, generation)

    async def _one_round(self, unit: Unit, generation: int) -> float | None:
        """One start and the run after it; returns the seconds until the next round, None when there is none."""
        await self._wait_for_others(unit)
        if refusal := await self._refusal(unit):
            unit.fail(refusal, Cause.QUARANTINE)
            return None
        try:
            await self._starter.bring_up(unit, generation)
        except StartFailed as failure:
            unit.fail(str(failure), failure.cause)
            return None if failure.final else unit.record.slow_retry()
        self._has_come_up(unit)
        return await self._run(unit)

    async def _run(self, unit: Unit) -> float | None:
        began = self._clock()
        ended = await self._watch(unit)
        return self._judge(unit, ended, self._clock() - began)

    async def _wait_for_others(self, unit: Unit) -> None:
        before = self._before(unit)
        for other in before.all:
            await other.settled.wait()
        for other in before.required:
            if other.state is not State.RUNNING:
                raise Blocked(
                    other.problem.blocks(unit.plugin_id, mounts=unit.candidate.parent_name == other.plugin_id)
                )

    def _has_come_up(self, unit: Unit) -> None:
        version = f" {unit.manifest.version}" if unit.manifest else ""
        how = "started by hand"
        if unit.process:
            how = f"process {unit.process.pid}, {unit.process.age():.2f} s after it was ordered"
        logger.info("plugin %s%s is registered and runs: %s", unit.plugin_id, version, how)
        unit.runs += 1
        self._came_up(unit)

    async def _watch(self, unit: Unit) -> Ended:
        """Waits until a run is over; a lost session alone does not end it, if a new one comes in time.

        A run that has to end because of a limit gets SIGTERM, on which the SDK cleans up.
        """
        process = unit.process
        assert process is not None
        while True:
            assert unit.lost is not None
            either: list[asyncio.Future[Any]] = [process.exited, process.keeping.ordered, unit.lost]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if process.keeping.ordered.done():
                await process.end(self._timing.of(unit.manifest).stop)
            if not process.exited.done():
                await asyncio.wait({process.exited}, timeout=self._timing.settle)
            if process.exited.done():
                return await self._over(unit, process)
            reason = unit.lost.result()
            logger.warning("plugin %s lost its session: %s", unit.plugin_id, reason)
            try:
                await self._starter.again(unit, process)
            except (StepFailed, StepRefused) as error:
                if process.exited.done() or process.keeping.ordered.done():
                    return await self._over(unit, process)
                await self._starter.discard(unit)
                return Ended(f"lost its session ({reason}) and did not get another: {error}", failed=True)

    async def _over(self, unit: Unit, process: Process) -> Ended:
        age = process.age()
        await self._starter.discard(unit)
        how = process.exited.result()
        story = how.told(f" after {age:.1f} s")
        if process.keeping.ordered.done():
            return Ended(story, failed=True, final=process.keeping.ordered.result().over == STOP)
        return Ended(story, failed=not how.clean)

    def _judge(self, unit: Unit, ended: Ended, uptime: float) -> float | None:
        story = f"plugin {unit.plugin_id!r} {ended.text}"
        if ended.final:
            unit.fail(unit.with_last_words(story), Cause.LIMIT)
            return None
        verdict = unit.record.ended(self._clock(), uptime, ended.failed, self._dice())
        if isinstance(verdict, Leave):
            logger.info("%s", story)
            unit.move(Trigger.EXITED)
            return None
        if isinstance(verdict, GiveUp):
            limits = self._timing.restart
            often = f" (more than {limits.budget} restarts in {limits.window:g} s)" if verdict.delay else ""
            unit.fail(unit.with_last_words(story + often), Cause.CRASHES if verdict.delay else Cause.ENDED)
            return verdict.delay
        self._went_down(unit)
        unit.restarts += 1
        unit.move(Trigger.RETRY, unit.with_last_words(story))
        logger.warning("%s; restart %d in %.1f s", story, unit.restarts, verdict.delay)
        return verdict.delay
