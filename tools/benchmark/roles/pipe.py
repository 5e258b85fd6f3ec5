"""How an endpoint process and the benchmark talk: a task in argv, JSON lines on stdout, a word on stdin.

An endpoint says `ready` when traffic can begin, waits for the word where its role needs one, and ends with a
report. Its clock is CLOCK_MONOTONIC, which all processes of one machine share.
"""

import asyncio
import atexit
import select
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from itertools import pairwise
from time import monotonic_ns, process_time_ns

import msgspec
from msgspec.structs import replace

from tools.benchmark.payload import END, PROBE

READY = b"ready\n"
GO = b"go\n"

# A stream that is silent for so long has lost its end; far above any pause of a working system.
PATIENCE_SECS = 15.0
# How often a publisher tries whether the path to its subscribers is open.
PROBE_SECS = 0.01
# How long a receiver listens on for events that should not come.
SETTLE_SECS = 0.02


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint process is to do."""

    role: str
    address: str
    index: int = 0
    publishers: int = 1
    count: int
    warmup: int
    in_flight: int = 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint process has to say in the end; times in nanoseconds of the shared clock.

    `cpu_ns` is the CPU time, user and system, that it has spent since it was ready or was told to go.
    """

    cpu_ns: int = 0
    began_ns: int = 0
    ended_ns: int = 0
    latencies_ns: list[int] = []
    faults: list[str] = []


Role = Callable[[Task], Report]
AsyncRole = Callable[[Task], Coroutine[None, None, Report]]


def ready() -> None:
    """Tell the benchmark that this endpoint has done what must come before the traffic."""
    _note_cpu()
    _write(READY)


def told(wait: float = 0.0) -> bool:
    """Whether the word to go has been given; waits for it up to `wait` seconds.

    Raises EOFError when the benchmark is gone, so that no endpoint outlives it.
    """
    if not select.select([sys.stdin.fileno()], [], [], wait)[0]:
        return False
    if sys.stdin.buffer.readline() != GO:
        raise EOFError("the benchmark has closed the pipe before the word to go")
    _note_cpu()
    return True


async def completion(done: asyncio.Event, progress: Callable[[], int]) -> None:
    """Wait for `done`, or until `progress` has stood still for PATIENCE_SECS."""
    seen = -1
    while not done.is_set() and progress() != seen:
        seen = progress()
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), PATIENCE_SECS)
    await asyncio.sleep(SETTLE_SECS)


async def calls(task: Task, ask: Callable[[int], Coroutine[None, None, None]]) -> Report:
    """Warm up, wait for the word, make the task's calls `in_flight` at a time, and end the server's count."""
    for _ in range(task.warmup):
        await ask(PROBE)
    ready()
    told(PATIENCE_SECS)
    report = await (_in_turn(task, ask) if task.in_flight == 1 else _at_once(task, ask))
    await ask(END)
    return report


async def _in_turn(task: Task, ask: Callable[[int], Coroutine[None, None, None]]) -> Report:
    stamps = [monotonic_ns()]
    for number in range(task.count):
        await ask(number)
        stamps.append(monotonic_ns())
    latencies = [later - earlier for earlier, later in pairwise(stamps)]
    return Report(began_ns=stamps[0], ended_ns=stamps[-1], latencies_ns=latencies)


async def _at_once(task: Task, ask: Callable[[int], Coroutine[None, None, None]]) -> Report:
    waiting = iter(range(task.count))

    async def caller() -> None:
        for number in waiting:
            await ask(number)

    began = monotonic_ns()
    await asyncio.gather(*(caller() for _ in range(task.in_flight)))
    return Report(began_ns=began, ended_ns=monotonic_ns())


def run(roles: Mapping[str, Role]) -> None:
    """Play the role named by the task in argv."""
    task = msgspec.json.decode(sys.argv[1], type=Task)
    done: list[Report] = []
    # Said last of all: what others have registered, such as the sending of spans, is done before and counts.
    atexit.register(_say, done)
    done.append(roles[task.role](task))


def blocking(role: AsyncRole) -> Role:
    """Make a role on an asyncio loop one that can be played like the others."""
    return lambda task: asyncio.run(role(task))


_idle_ns = 0


def _note_cpu() -> None:
    global _idle_ns
    _idle_ns = process_time_ns()


def _say(done: list[Report]) -> None:
    for report in done:
        _write(msgspec.json.encode(replace(report, cpu_ns=process_time_ns() - _idle_ns)) + b"\n")


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
