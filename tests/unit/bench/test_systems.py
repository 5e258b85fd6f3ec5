"""Every system under measurement keeps the same contract: its endpoints carry events and requests, all checked."""

import os
import time
from pathlib import Path

import pytest

from tools.benchmark import footprint
from tools.benchmark.measure import measure_events, measure_requests
from tools.benchmark.scenarios import Events, Requests, Size
from tools.benchmark.systems.base import System
from tools.benchmark.systems.nats import Nats
from tools.benchmark.systems.plugmesh import Plugmesh
from tools.benchmark.systems.pyzmq import Pyzmq

SIZE = Size(count=200, warmup=20)


@pytest.mark.parametrize("kind", [Plugmesh, Nats, Pyzmq])
def test_a_system_carries_events_and_requests_and_stops(kind: type[System], tmp_path: Path) -> None:
    system = kind()
    try:
        system.start(tmp_path)
        assert measure_events(system, Events(2, 2, SIZE, SIZE), SIZE)["events/s"] > 0
        assert measure_requests(system, Requests(1, SIZE, SIZE), SIZE)["µs p50"] > 0
        assert measure_requests(system, Requests(8, SIZE, SIZE), SIZE)["calls/s"] > 0
    finally:
        system.stop()
    assert system.versions()[system.packages[0]]


def test_a_system_that_never_started_can_be_stopped() -> None:
    for kind in (Plugmesh, Nats, Pyzmq):
        kind().stop()


def test_the_registration_of_a_managed_plugin_is_timed_from_its_own_spawn() -> None:
    began = time.monotonic()
    secs = footprint._registration_secs()
    # The kernel counts the spawn in hundredths of a second.
    assert 0.01 < secs < time.monotonic() - began + 0.01


def test_the_cpu_time_of_a_process_is_read_from_outside() -> None:
    before = time.process_time()
    assert before <= footprint._cpu_secs(os.getpid()) <= time.process_time()
