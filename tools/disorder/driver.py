"""What happens to the processes of a run, all of it from one seed, and a record of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

from plugin_sdk import BusError
from tools.disorder.books import Disturbance
from tools.disorder.cast import CAST, Member
from tools.disorder.home import until
from tools.disorder.intruder import Intruder
from tools.disorder.ledger import now
from tools.disorder.stage import Stage, signal_process

SHORT, LONG = (0.1, 2.0), (7.0, 8.0)  # seconds of being frozen: too short, and long enough, to be given up
STOPPED = (0, 3)  # exit status of a broker that was stopped: in order, or with something left undone
BURSTS = 8
BROKER, DATABASE = "broker", "database"


class Driver:
    """Hurts the processes of a stage.

    Args:
        stage: the processes.
        seed: decides what happens, in which order.
        long: whether the run is long enough for what takes many seconds.
    """

    def __init__(self, stage: Stage, seed: int, *, long: bool) -> None:
        self.record: list[Disturbance] = []
        self.faults: list[str] = []
        self._stage = stage
        self._chance = Random(seed)
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._intruder = Intruder(stage.home.path, Random(seed + 1))
        self._actions: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._kill_party, 8),
            (self._freeze_party, 8),
            (self._restart_party, 5),
            (self._kill_broker, 2),
            (self._end_broker, 1),
            (self._freeze_broker, 2),
            (self._starve_broker, 1 if long else 0),
            (self._kill_database, 2),
            (self._freeze_database, 2),
            (self._intrude, 8),
        ]

    async def play(self, seconds: float) -> None:
        """Do one thing after the other, several at a time, for so long; returns once all of it is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        actions, weights = zip(*self._actions, strict=True)
        while loop.time() < until:
            (action,) = self._chance.choices(actions, weights)
            self._begin(action())
            await asyncio.sleep(self._chance.uniform(0.1, 0.8))
            if BROKER not in self._busy:
                self._stage.repair_hands()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def burst(self) -> None:
        """Send garbage a few times, so that a new broker is as large as garbage makes it."""
        for _ in range(BURSTS):
            await asyncio.to_thread(self._intruder.send_garbage)

    def count(self, what: str, target: str = "") -> int:
        """How often something was done, to anybody or to one target."""
        return sum(each.what == what and (not target or each.target == target) for each in self.record)

    def _begin(self, action: Awaitable[None]) -> None:
        task = asyncio.ensure_future(action)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.faults.append(f"{type(error).__name__}: {error}")

    async def _with(self, target: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something to a target that nothing else is being done to."""
        if target not in self._busy:
            self._busy.add(target)
            try:
                await work()
            finally:
                self._busy.discard(target)

    def _note(self, what: str, target: str, begin: int) -> None:
        self.record.append(Disturbance(what, target, begin, now()))

    async def _on_party(self, work: Callable[[Member, int], Awaitable[None]]) -> None:
        member = self._chance.choice(CAST)

        async def do() -> None:
            pid = self._stage.pid(member.label)
            if pid is not None:
                await work(member, pid)

        await self._with(member.label, do)

    async def _kill_party(self) -> None:
        async def do(member: Member, pid: int) -> None:
            begin = now()
            if signal_process(pid, self._stage.folder, signal.SIGKILL):
                self._note("kill", f"{member.label}.{pid}", begin)

        await self._on_party(do)

    async def _freeze_party(self) -> None:
        secs = self._chance.uniform(*SHORT)
        await self._on_party(lambda member, pid: self._freeze(f"{member.label}.{pid}", secs, self._signals(pid)))

    async def _restart_party(self) -> None:
        async def do(member: Member, pid: int) -> None:
            begin = now()
            if not member.managed:
                if signal_process(pid, self._stage.folder, signal.SIGTERM):
                    process = self._stage.hands[member.label]
                    await until(lambda: process.poll() is not None, 20, f"{member.label} ends after SIGTERM")
            else:
                # The broker may be away, and with it the plugin.
                with suppress(BusError):
                    await self._stage.home.ask("$broker.stop", {"name": member.name}, 10)
                    await self._stage.home.ask("$broker.start", {"name": member.name}, 10)
            self._note("restart", f"{member.label}.{pid}", begin)

        await self._on_party(do)

    async def _kill_broker(self) -> None:
        gap = self._chance.choice((0.0, 0.5, 2.0))

        async def do() -> None:
            begin = now()
            await self._stage.home.end(signal.SIGKILL)
            await asyncio.sleep(gap)
            await self._stage.home.start()
            self._note("kill", BROKER, begin)

        await self._with(BROKER, do)

    async def _end_broker(self) -> None:
        async def do() -> None:
            begin = now()
            status = await self._stage.home.end(signal.SIGTERM)
            if status not in STOPPED:
                self.faults.append(f"the broker ended with status {status} after SIGTERM")
            await self._stage.home.start()
            self._note("end", BROKER, begin)

        await self._with(BROKER, do)

    async def _freeze_broker(self) -> None:
        secs = self._chance.uniform(*SHORT)
        await self._with(BROKER, lambda: self._freeze(BROKER, secs, self._signals(self._stage.home.pid)))

    async def _starve_broker(self) -> None:
        secs = self._chance.uniform(*LONG)
        await self._with(BROKER, lambda: self._freeze(BROKER, secs, self._signals(self._stage.home.pid)))

    async def _kill_database(self) -> None:
        gap = self._chance.uniform(0.5, 4.0)

        async def do() -> None:
            begin = now()
            self._stage.database.kill()
            await asyncio.sleep(gap)
            await asyncio.to_thread(self._stage.database.start)
            self._note("kill", DATABASE, begin)

        await self._with(DATABASE, do)

    async def _freeze_database(self) -> None:
        secs = self._chance.uniform(*SHORT)
        await self._with(DATABASE, lambda: self._freeze(DATABASE, secs, self._stage.database.signal))

    async def _intrude(self) -> None:
        name = self._chance.choice(("send_garbage", "read_slowly", "flood"))

        async def do() -> None:
            begin = now()
            # A broker that is away is no reason to stop.
            with suppress(OSError):
                await asyncio.to_thread(getattr(self._intruder, name))
            self._note(name, "intruder", begin)

        await self._with("intruder", do)

    async def _freeze(self, target: str, secs: float, send: Callable[[int], bool]) -> None:
        begin = now()
        if send(signal.SIGSTOP):
            await asyncio.sleep(secs)
            send(signal.SIGCONT)
            self._note("freeze", target, begin)

    def _signals(self, pid: int) -> Callable[[int], bool]:
        return lambda number: signal_process(pid, self._stage.folder, number)
