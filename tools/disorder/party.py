"""One process of a run: `python -m tools.disorder.party LABEL`, or the main file of a plugin that the broker starts."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

from plugin_sdk import BusError, CallError, Event, Plugin, SubscribeOptions
from tools.disorder.cast import MAX_PENDING, MEMBERS, SERVERS, Member
from tools.disorder.ledger import Ledger

FOLDER, SEED = "CHAOS_FOLDER", "CHAOS_SEED"
WATCH_SECS = 0.01
CALLERS = 6  # requests of one process at a time
LONGEST_STREAM = 200  # beyond the credit that a stream begins with, so that it has to be renewed


class Party(Plugin):
    """A plugin that does what its role says and keeps a ledger of it.

    Args:
        member: who it is.
        folder: of the run: ledgers, and a file `quiet` once there shall be quiet.
        seed: of the run.
    """

    def __init__(self, member: Member, folder: Path, seed: str) -> None:
        super().__init__(member.name, instance=member.instance)
        self.member = member
        self.ledger = Ledger(folder / "ledgers", member.label)
        self.chance = Random(f"{seed} {member.label}")
        self._quiet = folder / "quiet"
        self._works: list[asyncio.Task[None]] = []
        self._calls = 0

    async def start(self) -> None:
        """Subscribe and serve, then begin."""
        if self.member.role == "subscriber":
            await self._subscribe()
        elif self.member.role == "server":
            for handler in (self.echo, self.slow, self.fail, self.count):
                await self.bus.serve(f"{self.name}.{handler.__name__}", handler, concurrency=4)
        works = [self._watch()]
        if self.member.role == "publisher":
            works.append(self._publish())
        elif self.member.role == "caller":
            works += [self._ask() for _ in range(CALLERS)]
        self._works = [asyncio.create_task(work) for work in works]

    async def halt(self) -> None:
        """Enter that it was told to stop, and do so."""
        self.ledger.write("leave")
        await super().halt()

    async def stop(self) -> None:
        """Leave nothing running; what is under way is entered as given up."""
        for work in self._works:
            work.cancel()
        for end in await asyncio.gather(*self._works, return_exceptions=True):
            if not isinstance(end, asyncio.CancelledError | None):
                raise end

    async def echo(self, call: str) -> str:
        """Answer at once."""
        self.ledger.write("run", call)
        return call

    async def slow(self, call: str, secs: float) -> str:
        """Answer after a while."""
        self.ledger.write("run", call)
        await asyncio.sleep(secs)
        return call

    async def fail(self, call: str) -> None:
        """Answer with an error."""
        self.ledger.write("run", call)
        raise CallError("out_of_paper", call)

    async def count(self, call: str, number: int) -> AsyncIterator[int]:
        """Answer piece by piece."""
        self.ledger.write("run", call)
        for piece in range(number):
            if piece % 50 == 49:
                await asyncio.sleep(0.01)
            yield piece

    async def _watch(self) -> None:
        """Enter when sessions begin and end."""
        while True:
            try:
                await self.bus.ready(3600)
            except BusError:
                return
            # How often the session was lost so far: events carry the same number.
            number, epoch = self.bus.session, self.bus._inlets._epoch
            if not number:
                await asyncio.sleep(WATCH_SECS)
                continue
            self.ledger.write("in", number, epoch)
            while self.bus.session == number:  # noqa: ASYNC110 - the SDK has no event for the end of a session
                await asyncio.sleep(WATCH_SECS)
            self.ledger.write("out", number)

    async def _publish(self) -> None:
        subject = f"{self.member.topic}.{self.member.label}"
        number = 0
        while not self._quiet.exists():
            for _ in range(self.chance.randint(1, 12)):
                number += 1
                await self._publish_one(subject, number)
            await asyncio.sleep(self.chance.uniform(0, 0.05))
        self.ledger.write("quiet")

    async def _publish_one(self, subject: str, number: int) -> None:
        filler = bytes(self.chance.choice((0, 30, 300, 3000)))
        self.ledger.write("publish", number, len(filler))
        try:
            await self.publish(subject, [self.ledger.who, number, filler])
        except BusError as error:
            self.ledger.write("unpublished", number, error.code)
        else:
            self.ledger.write("published", number, self.bus.session)

    async def _subscribe(self) -> None:
        member = self.member
        pending = None if member.overflow == "block" else MAX_PENDING
        how = SubscribeOptions(group=member.group, overflow=member.overflow, max_pending=pending)
        await self.bus.subscribe(f"{member.topic}.*", self._take, options=how)

    async def _take(self, event: Event) -> None:
        publisher, number, _ = event.data
        self.ledger.write("event", event.epoch, publisher, number)
        if self.member.pause:
            await asyncio.sleep(self.member.pause)

    async def _ask(self) -> None:
        while not self._quiet.exists():
            self._calls += 1
            await self._ask_one(f"{self.ledger.who}-{self._calls}")
            await asyncio.sleep(self.chance.uniform(0, 0.08))
        self.ledger.write("quiet")

    async def _ask_one(self, call: str) -> None:
        timeout = self.chance.choice((0.05, 0.3, 1.0, 3.0))
        self.ledger.write("call", call, round(timeout * 1000))
        try:
            async with asyncio.timeout(self.chance.choice((0.02, 0.5, None, None, None, None, None))):
                outcome = await self._exchange(call, timeout)
        except TimeoutError:
            outcome = "cancelled"
        except BusError as error:
            outcome = "answered" if error.code == "out_of_paper" else error.code
        except asyncio.CancelledError:
            self.ledger.write("ended", call, "abandoned")
            raise
        self.ledger.write("ended", call, outcome)

    async def _exchange(self, call: str, timeout: float) -> str:
        """Make one request; returns its outcome when it was a reply."""
        server, wait = self.chance.choice(SERVERS), self.chance.choice((0.0, 0.0, timeout))
        match self.chance.choice(("echo", "echo", "slow", "fail", "count")):
            case "count":
                return await self._count(f"{server}.count", call, timeout)
            case "slow":
                args = {"call": call, "secs": self.chance.uniform(0, 0.4)}
                answer = await self.call(f"{server}.slow", args, timeout=timeout, wait_ready=wait)
            case method:
                answer = await self.call(f"{server}.{method}", {"call": call}, timeout=timeout, wait_ready=wait)
        return "reply" if answer == call else f"reply {answer!r}"

    async def _count(self, service: str, call: str, timeout: float) -> str:
        number = self.chance.randint(0, LONGEST_STREAM)
        pieces = [piece async for piece in self.stream(service, {"call": call, "number": number}, timeout=timeout)]
        return "reply" if pieces == list(range(number)) else f"reply {len(pieces)}/{number}"


def main(label: str) -> None:
    """Be this party until told to end."""
    party = Party(MEMBERS[label], Path(os.environ[FOLDER]), os.environ[SEED])
    status: object = 0
    try:
        party.run()
    except SystemExit as end:
        status = end.code
        raise
    finally:
        party.ledger.write("exit", status)


if __name__ == "__main__":
    main(sys.argv[1])
