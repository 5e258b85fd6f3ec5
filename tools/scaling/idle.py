"""What 100 idle plugins cost the broker, beside none."""

import time
from collections.abc import Callable

import psutil

from tools.scaling.figures import Figure
from tools.scaling.mesh import Broker, fresh_broker

PLUGINS, BOUND_MICROSECS = 100, 100.0
# What the last start set off (a line of a log, a write to the database) is over by then.
_SETTLE_SECS = 3.0


def measure(progress: Callable[[str], None], watch: float, plugins: int = PLUGINS) -> list[Figure]:
    """Watches a broker without plugins and one with 100 for `watch` seconds each."""
    alone = _load(0, watch)
    progress(f"no plugins: {alone * 1e6:.0f} µs of CPU a second")
    crowded = _load(plugins, watch)
    progress(f"{plugins} idle plugins: {crowded * 1e6:.0f} µs of CPU a second")
    detail = f"of the broker with all its helpers, over {watch:g} s"
    return [Figure("per idle plugin", (crowded - alone) / plugins * 1e6, BOUND_MICROSECS, "µs of CPU a second", detail)]


def _load(plugins: int, watch: float) -> float:
    with fresh_broker() as broker:
        for number in range(plugins):
            broker.add(f"idle{number}")
        broker.run()
        broker.until_started(plugins)
        time.sleep(_SETTLE_SECS)
        before, began = _cpu_secs(broker), time.monotonic()
        time.sleep(watch)
        load = (_cpu_secs(broker) - before) / (time.monotonic() - began)
        broker.stop()
    return load


def _cpu_secs(broker: Broker) -> float:
    """CPU time of the broker, its launcher and the guards of plugins, but not of the plugins."""
    process = psutil.Process(broker.pid)
    family = [process, *process.children(recursive=True)]
    return sum(_own_cpu_secs(each.pid) for each in family if _is_of_broker(each))


def _is_of_broker(process: psutil.Process) -> bool:
    """Whether a process is not a plugin, nor one that has ended by now."""
    try:
        return "main.py" not in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def _own_cpu_secs(pid: int) -> float:
    # To the nanosecond; /proc counts in hundredths, too coarse for what is idle. The clock of another process is formed
    # as clock_getcpuclockid(3) does it on Linux, which Python lacks.
    return time.clock_gettime(~pid << 3 | 2)
