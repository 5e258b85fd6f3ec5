"""What processes use, read from a process table that the test writes."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.telemetry import usage
from broker.telemetry.usage import Sampler, Usage

PAGE, HERTZ = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
BROKER, LAUNCHER, PLUGIN, CHILD = 10, 11, 20, 21


class Table:
    """A folder that looks like /proc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        pid: int,
        parent: int,
        group: int,
        *,
        ticks: int = 0,
        dead: int = 0,
        pages: int = 1,
        name: str = "a name) with (brackets",
    ) -> None:
        (self.folder / str(pid)).mkdir(exist_ok=True)
        fields = ["S", parent, group, group, *[0] * 7, ticks, 0, dead, 0, 0, 0, 2, 0, 7 * pid, 0, pages]
        line = f"{pid} ({name}) {' '.join(map(str, fields))} 0 0\n"
        (self.folder / str(pid) / "stat").write_text(line)

    def remove(self, pid: int) -> None:
        (self.folder / str(pid) / "stat").unlink()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setattr(usage, "SHORTEST_SECS", 0.0)
    made = Table(tmp_path)
    tmp_path.joinpath("self").mkdir()
    made.add(1, 0, 1)
    made.add(BROKER, 1, BROKER, ticks=5, pages=100)
    made.add(LAUNCHER, BROKER, BROKER, pages=10)
    made.add(PLUGIN, LAUNCHER, PLUGIN, ticks=HERTZ, pages=20)
    return made


@pytest.fixture
def sampler(table: Table) -> Sampler:
    return Sampler(table.folder, BROKER)


def test_a_plugin_is_its_group_and_everything_below_it(table: Table, sampler: Sampler) -> None:
    table.add(CHILD, PLUGIN, CHILD, pages=3)  # left the group
    table.add(22, 1, PLUGIN, pages=4)  # left its parent
    table.add(23, CHILD, CHILD, pages=5)
    assert sampler.read([PLUGIN]).plugins == {PLUGIN: Usage(32 * PAGE, 1.0, 8, 4)}


def test_what_has_got_away_from_a_plugin_to_its_guard_is_still_counted(table: Table, sampler: Sampler) -> None:
    table.add(19, LAUNCHER, BROKER, pages=50, name="plugmesh-guard")
    table.add(PLUGIN, 19, PLUGIN, pages=20)
    table.add(30, 19, 30, pages=3)  # forked twice, with a session of its own
    table.add(31, 30, 31, pages=4)
    assert sampler.read([PLUGIN]).plugins == {PLUGIN: Usage(27 * PAGE, 0.0, 6, 3)}


def test_of_a_guard_only_its_share_of_what_it_shares_is_counted(table: Table, sampler: Sampler) -> None:
    before = sampler.read([PLUGIN]).total.memory_bytes
    table.add(19, LAUNCHER, BROKER, pages=50, name="plugmesh-guard")
    rollup = table.folder / "19" / "smaps_rollup"
    rollup.write_text(f"Rss: {50 * PAGE // 1024} kB\nPss: {5 * PAGE // 1024} kB\nPss_Anon: 8 kB\n")
    assert sampler.read([PLUGIN]).total.memory_bytes == before + 5 * PAGE
    rollup.unlink()  # it is read once
    assert sampler.read([PLUGIN]).total.memory_bytes == before + 5 * PAGE
    table.add(18, LAUNCHER, BROKER, pages=50, name="plugmesh-guard")
    assert sampler.read([PLUGIN]).total.memory_bytes == before + 55 * PAGE


def test_the_total_counts_each_process_once(table: Table, sampler: Sampler) -> None:
    table.add(30, 1, 30, pages=7)  # a plugin that was started by hand
    measured = sampler.read([PLUGIN, 30])
    assert measured.total.memory_bytes == (100 + 10 + 20 + 7) * PAGE
    assert measured.total.processes == 4
    assert measured.broker == Usage(100 * PAGE, 5 / HERTZ, 2, 1)


def test_a_process_that_is_gone_is_left_out(table: Table, sampler: Sampler) -> None:
    assert sampler.read([99]).plugins == {}
    table.remove(PLUGIN)
    assert sampler.read([PLUGIN]).plugins == {}


def test_cpu_time_never_goes_down(table: Table, sampler: Sampler) -> None:
    table.add(CHILD, 1, PLUGIN, ticks=3 * HERTZ)
    before = sampler.read([PLUGIN])
    table.remove(CHILD)  # nobody of the group waited for it
    after = sampler.read([PLUGIN])
    assert before.plugins[PLUGIN].cpu_secs == after.plugins[PLUGIN].cpu_secs == 4.0
    assert after.total.cpu_secs >= before.total.cpu_secs


def test_a_child_that_ended_is_still_counted(table: Table, sampler: Sampler) -> None:
    table.add(PLUGIN, LAUNCHER, PLUGIN, ticks=HERTZ, dead=2 * HERTZ)
    assert sampler.read([PLUGIN]).plugins[PLUGIN].cpu_secs == 3.0


def test_the_total_keeps_the_time_of_plugins_that_left(table: Table, sampler: Sampler) -> None:
    table.add(30, 1, 30, ticks=1000 * HERTZ)  # ran for long before the broker knew it
    first = sampler.read([30]).total.cpu_secs
    table.add(30, 1, 30, ticks=1002 * HERTZ)
    second = sampler.read([30]).total.cpu_secs
    table.remove(30)
    assert sampler.read([]).total.cpu_secs == second == first + 2.0


def test_a_system_without_proc_knows_nothing(tmp_path: Path) -> None:
    measured = Sampler(tmp_path / "missing").read([1])
    assert (measured.plugins, measured.total) == ({}, Usage())


def test_many_who_ask_at_once_cost_one_reading(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "SHORTEST_SECS", 60.0)
    sampler = Sampler(table.folder, BROKER)
    first = sampler.read([PLUGIN])
    table.remove(PLUGIN)
    assert sampler.read([PLUGIN]) is first
    assert sampler.read([PLUGIN, 30]) is not first  # somebody new is asked for


def test_this_very_process_is_measured_for_what_it_is() -> None:
    sampler = Sampler()
    until(lambda: sampler.read([os.getpid()]).plugins[os.getpid()].cpu_secs > 0)
    mine = sampler.read([os.getpid()]).broker
    assert 1 << 20 < mine.memory_bytes < 1 << 34
    assert mine.threads >= 1


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
