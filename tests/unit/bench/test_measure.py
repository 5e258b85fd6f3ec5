"""Measurements run on real processes; one in which anything went wrong ends in an error, not in a figure."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tools.benchmark.child import BenchmarkError, Child, cpu_ns
from tools.benchmark.measure import measure_events, measure_requests
from tools.benchmark.meter import Meter
from tools.benchmark.scenarios import Events, Requests, Size
from tools.benchmark.systems.pyzmq import Pyzmq

SIZE = Size(count=20, warmup=5)


class Broken(Pyzmq):
    roles: ClassVar[str] = "tests.unit.bench.broken_roles"


@pytest.fixture
def sound(tmp_path: Path) -> Iterator[Pyzmq]:
    yield from running(Pyzmq(), tmp_path)


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Pyzmq]:
    yield from running(Broken(), tmp_path)


def running(system: Pyzmq, directory: Path) -> Iterator[Pyzmq]:
    try:
        system.start(directory)
        yield system
    finally:
        system.stop()


def events(publishers: int, subscribers: int) -> Events:
    return Events(publishers, subscribers, full=SIZE, quick=SIZE)


def requests(in_flight: int) -> Requests:
    return Requests(in_flight, full=SIZE, quick=SIZE)


def test_events_are_counted_per_publisher_and_per_subscriber(sound: Pyzmq) -> None:
    values = measure_events(sound, events(2, 3), SIZE)
    assert values["deliveries/s"] == pytest.approx(3 * values["events/s"])
    assert values["events/s"] > 0


def test_requests_one_at_a_time_give_percentiles_and_many_give_a_rate(sound: Pyzmq) -> None:
    assert measure_requests(sound, requests(1), SIZE)["µs p50"] > 0
    assert measure_requests(sound, requests(8), SIZE)["calls/s"] > 0


@pytest.mark.parametrize(("damage", "fault"), [("lose", "lost"), ("double", "doubled"), ("swap", "reordered")])
def test_one_damaged_event_fails_the_measurement(
    broken: Pyzmq, monkeypatch: pytest.MonkeyPatch, damage: str, fault: str
) -> None:
    monkeypatch.setenv("DAMAGE", damage)
    with pytest.raises(BenchmarkError, match=f"pyzmq: subscribe 0: publisher 0: 1 of 20 events {fault}"):
        measure_events(broken, events(1, 1), SIZE)


def test_the_answer_of_another_request_fails_the_measurement(broken: Pyzmq, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMAGE", "confuse")
    with pytest.raises(BenchmarkError, match="request 7 was given the answer of request 6"):
        measure_requests(broken, requests(1), SIZE)


def test_an_endpoint_that_dies_is_quoted(broken: Pyzmq, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMAGE", "die")
    with pytest.raises(BenchmarkError, match=r"call 0 ended with status 1 .*\n.*the caller was killed"):
        measure_requests(broken, requests(1), SIZE)


class Counting(Pyzmq):
    """A server of no cost of its own."""

    def cpu_ns(self) -> int:
        return 0


def test_a_meter_adds_up_what_the_endpoints_spend_on_the_traffic(tmp_path: Path) -> None:
    for system in running(Counting(), tmp_path):
        meter = Meter(system)
        measure_requests(system, requests(8), SIZE, meter)
        spent = meter.read()
        # Less than the start of one interpreter takes, let alone of two.
        assert 0 < spent < 500_000_000
        assert meter.read() == 0


def test_the_cpu_clock_of_another_process_runs_while_that_works() -> None:
    with Child("worker", [sys.executable, "-c", "while True: pass"]) as worker:
        deadline = time.monotonic() + 10
        while cpu_ns(worker.pid) < 50_000_000:
            assert time.monotonic() < deadline
            os.sched_yield()
