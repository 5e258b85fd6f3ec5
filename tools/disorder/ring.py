"""A broker with hostile peers in it, and two others who must not notice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from plugin_sdk import BusError, Event, connect
from tools.disorder.flow import SERVICE
from tools.disorder.guest import ERROR, Guest
from tools.disorder.home import Home, spawn

PAUSE_SECS = 0.002
SUBJECT = "calm.event"
WAIT_SECS = 15.0


class Harm(Exception):
    """The broker did not do what it promises about hostile peers; the text says what."""


class Victims:
    """A publisher, a subscriber and a caller on the SDK, all the time at work; the service is a process of its own.

    `calls` and `events` count what went well, `faults` says what did not, `slowest` is the longest call in seconds.

    Args:
        home: of the broker.
    """

    def __init__(self, home: Home) -> None:
        self.calls = 0
        self.events = 0
        self.slowest = 0.0
        self.faults: list[str] = []
        self._home = home
        self._over = threading.Event()
        self._server: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), name="victims", daemon=True)

    def start(self) -> None:
        """Begin; returns once they work."""
        command = [sys.executable, "-m", "tools.disorder.flow", "server", str(self._home.path)]
        self._server = spawn(command, self._home.environment, self._home.log.with_name("server.log"))
        self._thread.start()
        wait_for(lambda: self.events > 10 and self.calls > 10, "the victims are at work")

    def stop(self) -> None:
        """End them."""
        self._over.set()
        self._thread.join(WAIT_SECS)
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def check(self) -> None:
        """Raise Harm when anything went wrong with them, or when they do not go on."""
        calls, events = self.calls, self.events
        wait_for(lambda: self.faults or (self.calls > calls + 5 and self.events > events + 5), "the victims go on")
        if self.faults:
            raise Harm(f"{len(self.faults)} faults at those who did nothing: {self.faults[0]}")

    async def _work(self) -> None:
        try:
            async with connect(home=self._home.path, name="victim") as bus, bus.subscribe(SUBJECT, self._take):
                await bus.call(SERVICE, 0, wait_ready=WAIT_SECS, timeout=WAIT_SECS)
                number = 0
                while not self._over.is_set():
                    number += 1
                    await bus.publish(SUBJECT, number)
                    await self._ask(bus, number)
                    await asyncio.sleep(PAUSE_SECS)
        except BusError as error:
            self.faults.append(f"{error}")

    async def _ask(self, bus: Any, number: int) -> None:
        began = time.perf_counter()
        answer = await bus.call(SERVICE, number, timeout=WAIT_SECS)
        self.slowest = max(self.slowest, time.perf_counter() - began)
        self.calls += 1
        if answer != number:
            self.faults.append(f"the answer to {number} was {answer!r}")

    async def _take(self, event: Event) -> None:
        self.events += 1
        if event.data != self.events:
            self.faults.append(f"event {event.data!r} came in the place of {self.events}")


class Ring:
    """A broker with victims in it. All is as by default, but that it soon finds out who has vanished."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True)
        self.home = Home(Path(self._folder.name) / "home", {"BROKER_BUS_HEARTBEAT_SECS": "1"})
        self.victims = Victims(self.home)

    def __enter__(self) -> Self:
        try:
            asyncio.run(self.home.start())
            self.victims.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave nothing behind."""
        self.victims.stop()
        self.home.close()
        self._folder.cleanup()

    def guest(self, name: str = "", role: str = "client", **how: Any) -> Guest:
        """A peer of one's own, registered if it has a name."""
        guest = Guest(self.home.endpoint, self.home.key, **how)
        if name:
            guest.register(name, role)
        return guest

    def ask(self, service: str) -> Any:
        """Ask the broker as its operator."""
        return asyncio.run(self.home.ask(service, timeout=WAIT_SECS))

    def counters(self) -> dict[str, int]:
        """What the broker counts."""
        counters: dict[str, int] = self.ask("$broker.status")["broker"]["counters"]
        return counters

    def sessions(self) -> dict[int, dict[str, Any]]:
        """The sessions by number."""
        return {each["session"]: each for each in self.ask("$broker.sessions")}


def wait_for(condition: Callable[[], Any], what: str, within: float = WAIT_SECS) -> Any:
    """The first true value of `condition`; raises Harm when none comes in time."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Harm(f"not within {within:g} s: {what}")
        time.sleep(0.02)
    return value


def refused(guest: Guest, code: str, ref: int = 0) -> None:
    """The next ERROR with this ref has this code, and the session of its receiver stands; raises Harm otherwise."""
    answer = guest.expect(ERROR, ref=ref)
    if answer[2] != code:
        raise Harm(f"the error is {answer[2]!r} ({answer[3]}), not {code!r}")
    if not guest.is_heard():
        raise Harm(f"after the error {code!r} its session does not stand")


def not_admitted(attempt: Callable[[], object], code: str) -> None:
    """A registration is refused with this code; raises Harm otherwise."""
    try:
        attempt()
    except BusError as error:
        if error.code != code:
            raise Harm(f"the registration was refused with {error.code!r} ({error.text}), not {code!r}") from None
    else:
        raise Harm(f"the registration was not refused with {code!r}")
