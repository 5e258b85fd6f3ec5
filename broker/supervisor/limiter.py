"""Every plugin's use beside its limits, and what its policy says is to be done about an excess (SEC-3, OPS-8)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from broker.supervisor.excess import Excess, Use
from broker.supervisor.keeping import REPORT
from broker.supervisor.process import Process
from broker.supervisor.roster import Roster
from broker.supervisor.states import State
from broker.supervisor.unit import Unit


@dataclass(frozen=True, slots=True)
class Exceeded:
    """One plugin that has begun to exceed one limit."""

    plugin_id: str
    excess: Excess


class Limiter:
    """Judges what plugins use; whoever can measure it brings the figures."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def watches(self) -> bool:
        """Whether there is anything to look at."""
        return any(True for _ in self._running())

    def pids(self) -> list[int]:
        """The first process of each plugin whose use has to be known."""
        return [pid for _, _, pid in self._watched()]

    def judge(self, uses: Mapping[int, Use], now: float) -> list[Exceeded]:
        """Take note of what plugins use; returns what has become too much since the last time.

        A plugin whose policy is to restart or to stop is told to end before this returns.

        Args:
            uses: by the first process of the plugin.
            now: monotonic seconds.
        """
        found = []
        for unit, process, pid in self._watched():
            watch = process.keeping.watch
            if watch is None or pid not in uses:
                continue
            for excess in watch.note(uses[pid], now):
                unit.exceeded[excess.limit] += 1
                if excess.over != REPORT:
                    process.keeping.order(excess)
                found.append(Exceeded(unit.plugin_id, excess))
        return [*found, *self._refused()]

    def _refused(self) -> Iterator[Exceeded]:
        for unit, process, _ in self._running():
            if excess := process.keeping.refusal():
                unit.exceeded[excess.limit] += 1
                yield Exceeded(unit.plugin_id, excess)

    def _watched(self) -> Iterator[tuple[Unit, Process, int]]:
        return (each for each in self._running() if not each[1].kept_by_kernel)

    def _running(self) -> Iterator[tuple[Unit, Process, int]]:
        for unit in self._roster:
            process = unit.process
            if process is None or process.pid is None or process.keeping.watch is None:
                continue
            # Beyond its processes a plugin goes on and has to be told; what else the kernel keeps tells itself.
            if process.kept_by_kernel and process.keeping.watch.limits.processes is None:
                continue
            if unit.state is not State.STOPPING and not process.keeping.ordered.done():
                yield unit, process, process.pid
