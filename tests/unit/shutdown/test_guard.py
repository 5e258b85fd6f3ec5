"""The guard hears signals whatever the main thread does, and ends a process that does not end by itself."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.shutdown.guard import EX_FORCED, Guard

PATIENCE = 10.0


class Ending:
    """Stands in for os._exit."""

    def __init__(self) -> None:
        self.status: int | None = None
        self._left = threading.Event()

    def __call__(self, status: int) -> None:
        self.status = status
        self._left.set()

    def wait(self) -> int | None:
        assert self._left.wait(PATIENCE), "the guard did not end the process"
        return self.status


@contextmanager
def hanging_log() -> Iterator[None]:
    """A log whose lock somebody holds, as a main thread that is stuck in writing to it does."""
    handler = logging.StreamHandler()
    logging.getLogger("broker.shutdown").addHandler(handler)
    handler.acquire()
    try:
        yield
    finally:
        handler.release()
        logging.getLogger("broker.shutdown").removeHandler(handler)


def hit(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def test_past_its_time_it_kills_the_plugins_says_what_was_unfinished_and_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ending, killed = Ending(), []
    with Guard(0.05, leave=ending) as guard:
        guard.kill = lambda: killed.append("plugins")
        guard.unfinished = lambda: "stop plugins, waiting for a (stopping)"
        guard.arm()
        assert ending.wait() == EX_FORCED
    assert killed == ["plugins"]
    assert "because the time of 0.05 s was over; unfinished: stop plugins, waiting for a (stopping)" in caplog.text
    assert "the main thread is in " in caplog.text


def test_without_a_limit_only_signals_end_it(caplog: pytest.LogCaptureFixture) -> None:
    ending = Ending()
    with Guard(None, leave=ending) as guard:
        guard.arm()
        hit(signal.SIGTERM)
        assert ending.wait() == EX_FORCED
    assert "by a second signal (SIGTERM)" in caplog.text


def test_a_log_that_does_not_move_does_not_keep_it() -> None:
    ending = Ending()
    with hanging_log(), Guard(0.05, leave=ending) as guard:
        guard.arm()
        assert ending.wait() == EX_FORCED


def test_plugins_that_cannot_be_killed_are_told_and_do_not_keep_it(caplog: pytest.LogCaptureFixture) -> None:
    ending = Ending()

    def fail() -> None:
        raise OSError("no descriptor")

    with Guard(0.05, leave=ending) as guard:
        guard.kill = fail
        guard.arm()
        assert ending.wait() == EX_FORCED
    assert "plugins could not be killed: OSError('no descriptor')" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_a_first_signal_is_told_to_the_loop_and_a_second_one_of_any_kind_ends_the_process(
    number: signal.Signals,
) -> None:
    ending = Ending()

    async def scenario(guard: Guard) -> str:
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        guard.attach(asyncio.get_running_loop(), told.set_result, lambda: None)
        hit(number)
        async with asyncio.timeout(PATIENCE):
            return await told

    with Guard(60, leave=ending) as guard:
        assert asyncio.run(scenario(guard)) == number.name
        assert ending.status is None
        hit(signal.SIGINT)
        assert ending.wait() == EX_FORCED


def test_signals_that_came_before_there_was_a_loop_are_told_to_it() -> None:
    async def scenario(guard: Guard) -> str:
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        guard.attach(asyncio.get_running_loop(), told.set_result, lambda: None)
        async with asyncio.timeout(PATIENCE):
            return await told

    with Guard(60, leave=Ending()) as guard:
        hit(signal.SIGTERM)
        assert asyncio.run(scenario(guard)) == "SIGTERM"


def test_a_hangup_reloads_and_never_stops_or_forces_unless_it_is_set_to_stop() -> None:
    async def scenario(guard: Guard) -> list[str]:
        told: asyncio.Queue[str] = asyncio.Queue()
        guard.attach(asyncio.get_running_loop(), told.put_nowait, lambda: told.put_nowait("reload"))
        async with asyncio.timeout(PATIENCE):
            hit(signal.SIGHUP)
            first = await told.get()
            guard.hangup_stops = True
            hit(signal.SIGHUP)
            second = await told.get()
            # Whoever closes a terminal may send more than one.
            hit(signal.SIGHUP)
            return [first, second]

    ending = Ending()
    with Guard(60, leave=ending) as guard:
        assert asyncio.run(scenario(guard)) == ["reload", "SIGHUP"]
    assert ending.status is None


def test_afterwards_signals_are_handled_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Guard(60, leave=Ending()):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


STUCK = """
import select, sys, time
from broker.shutdown.guard import Guard

with Guard(0.3) as guard:
    guard.unfinished = lambda: "stop plugins"
    print("stuck", flush=True)
    {how}
"""


@pytest.mark.parametrize("how", ["time.sleep(600)", "select.select([], [], [], 600)", "while True: pass"])
def test_a_main_thread_that_hangs_is_ended_after_the_first_signal(how: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", STUCK.format(how=how)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "stuck\n"
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == EX_FORCED
    assert "because the time of 0.3 s was over; unfinished: stop plugins; the main thread is in <module>" in said
