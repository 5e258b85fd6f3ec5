"""The machine and the versions behind the figures, without which they mean nothing."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from tools.benchmark.systems.base import System

_GIB = 1 << 30


# Above this much other work a core, what is measured is the scheduler.
_BUSY = 0.25


def busy() -> str:
    """What to warn of when others use the machine; empty when it is quiet."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load <= _BUSY * cores:
        return ""
    return f"the machine is busy: load {load:.2f} on {cores} cores; the figures are indicative only"


def machine() -> dict[str, str]:
    """What the benchmark runs on, and how busy that is before it begins."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "CPU": _cpu_model(),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def versions(systems: Iterable[System]) -> dict[str, str]:
    """The versions of everything that shapes the figures, by name."""
    found = {"Python": platform.python_version(), "msgspec": version("msgspec")}
    for system in systems:
        found |= system.versions()
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
