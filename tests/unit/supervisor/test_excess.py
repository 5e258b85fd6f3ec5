"""A plugin over its limits is found, told once for each time, and what its policy says is to be done."""

import pytest

from broker.supervisor.confinement import ResourceLimits
from broker.supervisor.excess import CPU_WINDOW_SECS, Excess, Use, Watch

MIB = 1 << 20


def use(memory: int = 0, cpu: float = 0.0, processes: int = 1) -> Use:
    return Use(memory * MIB, cpu, processes)


def test_what_stays_within_its_limits_is_not_mentioned() -> None:
    watch = Watch(ResourceLimits(memory=100 * MIB, cpu=1.0, processes=10))
    assert [watch.note(use(100, float(second), 10), second) for second in range(60)] == [[]] * 60
    assert watch.over == []


def test_memory_over_the_limit_is_told_with_both_figures() -> None:
    watch = Watch(ResourceLimits(memory=100 * MIB))
    (excess,) = watch.note(use(150), 0.0)
    assert excess == Excess("memory", "uses 150 MiB of memory, its limit is 100 MiB", "report")
    assert watch.over == ["memory"]


def test_an_excess_is_told_again_only_when_it_was_over_in_between() -> None:
    watch = Watch(ResourceLimits(memory=100 * MIB))
    told = [len(watch.note(use(memory), float(second))) for second, memory in enumerate((150, 160, 95, 101, 50, 150))]
    # 95 is not far enough below the limit: a plugin that hovers there would fill the log.
    assert told == [1, 0, 0, 0, 0, 1]
    assert watch.exceeded == {"memory": 2}


def test_too_many_processes_are_told() -> None:
    (excess,) = Watch(ResourceLimits(processes=4, over="restart")).note(use(processes=9), 0.0)
    assert (excess.limit, excess.over) == ("processes", "restart")
    assert excess.text == "has 9 processes and threads, its limit is 4"


def test_cpu_is_judged_over_a_window_not_by_a_burst() -> None:
    watch = Watch(ResourceLimits(cpu=0.5))
    assert watch.note(use(cpu=0.0), 0.0) == []
    assert watch.note(use(cpu=4.0), 4.0) == [], "a burst at full speed, shorter than the window"
    assert watch.note(use(cpu=4.5), CPU_WINDOW_SECS) == []
    (excess,) = watch.note(use(cpu=14.5), 2 * CPU_WINDOW_SECS)
    assert excess.text == "used 1.00 cores over the last 10 s, its limit is 0.5"


def test_a_child_that_ended_does_not_count_as_negative_work() -> None:
    watch = Watch(ResourceLimits(cpu=0.5))
    watch.note(use(cpu=100.0), 0.0)
    assert watch.note(use(cpu=1.0), CPU_WINDOW_SECS) == []


@pytest.mark.parametrize("policy", ["report", "restart", "stop"])
def test_the_policy_says_what_is_to_be_done(policy: str) -> None:
    watch = Watch(ResourceLimits(memory=MIB, over=policy))  # type: ignore[arg-type]
    assert watch.note(use(2), 0.0)[0].over == policy
