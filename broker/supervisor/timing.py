"""How long things may take and how often they are tried, where no manifest says otherwise."""

from dataclasses import dataclass, field

from broker.supervisor.excess import CPU_WINDOW_SECS
from broker.supervisor.manifest import Manifest, Timeouts
from broker.supervisor.restart import RestartLimits


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds for each step of one plugin; `stop` is for the whole way down, `cleanup` its first part.

    `drain`: for what an old version still has in hand when a new one has taken over; `min_uptime`: for how long a new
    version must have been well before that.
    """

    register: float
    initialize: float
    start: float
    cleanup: float
    stop: float
    drain: float
    min_uptime: float


@dataclass(frozen=True, slots=True)
class Timing:
    """The supervisor's own figures, in seconds but for `attempts`.

    Args:
        step: what each step of a start may take.
        cleanup: what the commands `$plugin.stop` and `$plugin.cleanup` may take together.
        stop: what a stop may take, from the first command to SIGKILL.
        drain: how long an old version may take to finish what it has, once a new one has taken over.
        min_uptime: for how long a new version must have been well before that.
        attempts: how often one start is tried.
        retry_first: about how long to wait before the second attempt; it doubles from there.
        retry_longest: the most that is waited between attempts.
        abort: from SIGTERM to SIGKILL for a process whose start has failed.
        settle: how long a process whose session is gone may take to end before it is taken for alive.
        cpu_window: over how long the use of CPU is judged.
    """

    step: float = 10.0
    cleanup: float = 3.0
    stop: float = 5.0
    drain: float = 30.0
    min_uptime: float = 3.0
    attempts: int = 3
    retry_first: float = 0.5
    retry_longest: float = 5.0
    abort: float = 1.0
    settle: float = 0.5
    cpu_window: float = CPU_WINDOW_SECS
    restart: RestartLimits = field(default_factory=RestartLimits)

    def of(self, manifest: Manifest | None) -> StepTimes:
        """The times of one plugin: its own where it has any."""
        own = manifest.timeouts if manifest else Timeouts()
        cleanup = own.cleanup or self.cleanup
        return StepTimes(
            register=own.register_ or self.step,
            initialize=own.initialize or self.step,
            start=own.start or self.step,
            cleanup=cleanup,
            # Who asks for a long cleanup must not be killed in the middle of it.
            stop=own.stop or max(self.stop, cleanup + 1.0),
            drain=own.drain or self.drain,
            min_uptime=own.min_uptime or self.min_uptime,
        )
