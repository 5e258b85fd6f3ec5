"""One run from one seed, and the shortest one that shows the same."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from broker.core import events
from plugin_sdk import workers
from tests.simulation.actions import Action, act
from tests.simulation.exam import examine
from tests.simulation.invariants import check_quiet, leftovers, unsettled
from tests.simulation.loop import Stalled, VirtualLoop
from tests.simulation.world import World

STEPS = 20
SETTLE_SECS, LOOK_SECS = 240.0, 0.25
LAST = 30  # actions that a report shows


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown: `faults` is empty when every invariant held; `digest` is that of all traffic."""

    seed: int
    steps: int
    faults: tuple[str, ...]
    trace: tuple[tuple[float, str], ...]
    digest: int

    def __str__(self) -> str:
        lines = [f"seed {self.seed} {'breaks' if self.faults else 'keeps'} the invariants in {self.steps} steps"]
        lines += [f"  {fault}" for fault in self.faults]
        lines += [f"the last {min(LAST, len(self.trace))} of {len(self.trace)} entries of its trace:"]
        lines += [f"  {when:10.4f}  {text}" for when, text in self.trace[-LAST:]]
        lines += [f"again: tools/simulate --seed {self.seed} --seeds 1 --steps {self.steps}"]
        return "\n".join(lines)


def simulate(seed: int, steps: int = STEPS, act: Action = act) -> Outcome:
    """Run one seed for so many steps, heal everything, let it come to rest, and let everybody leave.

    Args:
        seed: everything that happens by chance follows from it.
        steps: how often `act` is asked to do something.
        act: does it; by default one action after the other by chance.
    """
    loop = VirtualLoop()
    with _alone(loop, seed):
        world = World(loop, seed)
        try:
            loop.run_until_complete(_play(world, steps, act))
        except Stalled as error:
            world.fault(str(error))
        for context in loop.faults:
            world.fault(f"an exception escaped: {context.get('exception') or context['message']!r}")
        _dissolve(loop, world)
    return Outcome(seed, steps, tuple(world.faults), tuple(world.trace), world.network.digest)


def shorten(outcome: Outcome) -> Outcome:
    """The run with the fewest steps of the same seed that shows a fault, perhaps another one."""
    for steps in range(outcome.steps):
        shorter = simulate(outcome.seed, steps)
        if shorter.faults:
            return shorter
    return outcome


async def _play(world: World, steps: int, act: Action) -> None:
    chance = world.chance
    world.start()
    await asyncio.sleep(0.1)
    for _ in range(steps):
        act(world)
        if chance.random() < 0.6:
            await asyncio.sleep(chance.choice((0.0, 0.001, 0.01, 0.1, 0.6)))
        if world.faults:
            return
    await _settle(world)
    if not world.faults:
        check_quiet(world)
    if not world.faults:
        await examine(world)
        await _settle(world)
    if not world.faults:
        check_quiet(world)
    if not world.faults:
        await _part(world)


async def _settle(world: World) -> None:
    world.network.calm = True
    until = world.loop.time() + SETTLE_SECS
    while any(unsettled(world)):
        if world.loop.time() > until:
            world.fault(f"not at rest {SETTLE_SECS:g} s after the last failure: {next(unsettled(world))}")
            return
        if world.faults:
            return
        await asyncio.sleep(LOOK_SECS)


async def _part(world: World) -> None:
    """Everybody says a last word and leaves; then nothing may be left."""
    sessions = [(each, each.peer.number) for each in world.slots if each.alive and each.peer is not None]
    for process, _ in sessions:
        process.leave(last_words=3)
    for _ in range(round(SETTLE_SECS / LOOK_SECS)):
        if not any(leftovers(world)):
            break
        await asyncio.sleep(LOOK_SECS)
    for left in leftovers(world):
        world.fault(f"after everybody has left, the broker still has {left}")
    for process, number in sessions:
        if number not in world.thrown_out and (lacking := process.publisher.lacking(number)):
            world.fault(f"{process.who} left in good order, and its events {lacking} never reached the broker")


def _dissolve(loop: VirtualLoop, world: World) -> None:
    """End what still runs, so that nothing of this run is left to the next."""
    world.broker.kill()
    for process in world.processes.values():
        process.alive = False
        process.cancel_all()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    try:
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except Stalled as error:
        world.fault(str(error))
    for task in asyncio.all_tasks(loop):
        world.fault(f"a task goes on after it was cancelled: {task!r}")
    loop.close()


@contextmanager
def _alone(loop: VirtualLoop, seed: int) -> Iterator[None]:
    """Everything that would make a run differ from the last one of the same seed is held still."""
    clock, collects = vars(workers)["perf_counter"], gc.isenabled()
    ids = events.IDS_PER_EVENT
    log = logging.getLogger("plugin_sdk")
    level = log.level
    state = random.getstate()
    # Retries wait for times that the module's own generator chooses.
    random.seed(seed)
    vars(workers)["perf_counter"] = loop.time
    # So few subscriptions as there are here would never fill a packet.
    vars(events)["IDS_PER_EVENT"] = 2 if seed % 3 else ids
    log.setLevel(logging.CRITICAL + 1)
    # A collection at any moment closes forgotten generators, and with it changes what happens next.
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        log.setLevel(level)
        vars(workers)["perf_counter"] = clock
        vars(events)["IDS_PER_EVENT"] = ids
        random.setstate(state)
