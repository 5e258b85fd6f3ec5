"""Plugins over their limits: found by comparing what they use with what they may, told once each time (SEC-3, OPS-8).

Pure: what is used and the time come in, decisions go out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from broker.supervisor.confinement import ResourceLimits

CPU_WINDOW_SECS = 10.0  # CPU is judged over so long: a start or a burst of work is no excess
CALM = 0.9  # an excess is over when the use has come below this part of the limit


@dataclass(frozen=True, slots=True)
class Use:
    """What all processes of a plugin use: bytes of memory, seconds of CPU time so far, processes and threads."""

    memory: int
    cpu_secs: float
    processes: int


@dataclass(frozen=True, slots=True)
class Excess:
    """One limit that a plugin has begun to exceed; `over` is what is to be done about it."""

    limit: str
    text: str
    over: str


@dataclass(slots=True)
class Watch:
    """One run of one plugin.

    Args:
        limits: those of memory, CPU and processes count here.
        window: seconds over which CPU is judged.
        exceeded: counts by limit how often it began to exceed it.
    """

    limits: ResourceLimits
    window: float = CPU_WINDOW_SECS
    exceeded: dict[str, int] = field(default_factory=dict)
    _over: dict[str, str] = field(default_factory=dict)
    _window: tuple[float, float] | None = None

    def note(self, use: Use, now: float) -> list[Excess]:
        """Compare one reading; returns the limits that are exceeded since the last one was not.

        Args:
            use: of the whole plugin.
            now: monotonic seconds.
        """
        found = []
        for limit, used, allowed, text in self._readings(use, now):
            if used > allowed:
                known = limit in self._over
                self._over[limit] = text
                if not known:
                    self.exceeded[limit] = self.exceeded.get(limit, 0) + 1
                    found.append(Excess(limit, text, self.limits.over or "report"))
            elif used < CALM * allowed:
                self._over.pop(limit, None)
        return found

    @property
    def over(self) -> list[str]:
        """The limits that are exceeded now."""
        return sorted(self._over)

    @property
    def told(self) -> tuple[str, ...]:
        """The same in words, with the figures of the last reading."""
        return tuple(self._over[limit] for limit in self.over)

    def _readings(self, use: Use, now: float) -> Iterator[tuple[str, float, float, str]]:
        if self.limits.memory is not None:
            text = f"uses {_mib(use.memory)} of memory, its limit is {_mib(self.limits.memory)}"
            yield "memory", use.memory, self.limits.memory, text
        if self.limits.processes is not None:
            text = f"has {use.processes} processes and threads, its limit is {self.limits.processes}"
            yield "processes", use.processes, self.limits.processes, text
        if self.limits.cpu is not None and (mean := self._mean(use, now)) is not None:
            cores, secs = mean
            text = f"used {cores:.2f} cores over the last {secs:.3g} s, its limit is {self.limits.cpu:g}"
            yield "cpu", cores, self.limits.cpu, text

    def _mean(self, use: Use, now: float) -> tuple[float, float] | None:
        """Cores used over a window, and its seconds; None until one is full."""
        if self._window is None:
            self._window = (now, use.cpu_secs)
        began, used = self._window
        if now - began < self.window:
            return None
        self._window = (now, use.cpu_secs)
        return max(0.0, use.cpu_secs - used) / (now - began), now - began


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
