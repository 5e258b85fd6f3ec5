"""What plugmesh costs when nothing happens: time to start, time to register, memory, idle CPU."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import clock_gettime, monotonic, sleep

import psutil

from tools.benchmark.child import Child
from tools.benchmark.figures import Figure
from tools.benchmark.idle_plugin import main as idle_plugin
from tools.benchmark.requirements import IDLE_CPU, IDLE_PLUGINS, MEMORY, REGISTRATION, START
from tools.benchmark.results import OURS, Measure
from tools.benchmark.systems.plugmesh import accepts, spawn_broker

_FULL_TRIALS, _QUICK_TRIALS = 5, 2
_FULL_WATCH_SECS, _QUICK_WATCH_SECS = 5.0, 2.0
_PLUGINS_SECS = 60.0
# From the last registration until what it set off (a database write, a log line) is over.
_SETTLE_SECS = 1.0
_POLL_SECS = 0.01
_MIB = 1 << 20


def measure(*, quick: bool, progress: Callable[[str], None]) -> list[Measure]:
    """Measure brokers of their own, each on a fresh home.

    Raises BenchmarkError when a broker or a plugin does not come up.
    """
    trials = _QUICK_TRIALS if quick else _FULL_TRIALS
    watch = _QUICK_WATCH_SECS if quick else _FULL_WATCH_SECS
    found = {
        START: [_start_secs() for _ in range(trials)],
        REGISTRATION: [_registration_secs() for _ in range(trials)],
    }
    memory, cpu = _idle(watch)
    found |= {MEMORY: [memory], IDLE_CPU: [cpu]}
    for (title, unit), values in found.items():
        progress(f"{title}: {', '.join(f'{value:.3g}' for value in values)} {unit}")
    return [Measure(title, unit, {OURS: Figure.over(values)}) for (title, unit), values in found.items()]


def _start_secs() -> float:
    with _home() as home:
        began = monotonic()
        with spawn_broker(home) as broker:
            asyncio.run(accepts(broker, home))
            return monotonic() - began


def _registration_secs() -> float:
    with _home(plugins=1) as home, spawn_broker(home) as broker:
        return _await_registrations(broker, home, 1)[0]


def _idle(watch: float) -> tuple[float, float]:
    """Memory in MiB, and CPU in % of a core over `watch` seconds, of a broker whose plugins idle."""
    with _home(IDLE_PLUGINS) as home, spawn_broker(home) as broker:
        _await_registrations(broker, home, IDLE_PLUGINS)
        sleep(_SETTLE_SECS)
        cpu, began = _cpu_secs(broker.pid), monotonic()
        sleep(watch)
        share = (_cpu_secs(broker.pid) - cpu) / (monotonic() - began)
        return psutil.Process(broker.pid).memory_info().rss / _MIB, 100 * share


def _cpu_secs(pid: int) -> float:
    """CPU time of a process to the nanosecond; what /proc tells comes in hundredths, too coarse for an idle one."""
    # The clock of another process: clock_getcpuclockid(3), which Python lacks, forms it in this way on Linux.
    return clock_gettime(~pid << 3 | 2)


def _await_registrations(broker: Child, home: Path, number: int) -> list[float]:
    deadline = monotonic() + _PLUGINS_SECS
    while len(notes := list(home.glob(f"data/*/{idle_plugin.NOTE}"))) < number:
        broker.check()
        if monotonic() > deadline:
            raise broker.failure(f"had {len(notes)} of {number} plugins registered after {_PLUGINS_SECS:g} s")
        sleep(_POLL_SECS)
    return [float(note.read_text()) for note in notes]


@contextmanager
def _home(plugins: int = 0) -> Iterator[Path]:
    """A broker's home with a number of idle plugins."""
    with tempfile.TemporaryDirectory(prefix="bench-home-") as directory:
        home = Path(directory)
        for number in range(plugins):
            folder = home / "plugins" / f"idle-{number:02}"
            folder.mkdir(parents=True)
            shutil.copy(str(idle_plugin.__file__), folder / "main.py")
            (folder / "plugin.yaml").write_text(f'name: {folder.name}\nversion: "1.0.0"\n')
        yield home
