"""When a plugin that ended is started again (PLG-10).

Pure: the time and the dice come in as arguments. Full jitter, after "Exponential Backoff And Jitter" (AWS
Architecture Blog, 2015), keeps plugins that died of one cause from coming back in step.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum


class RestartPolicy(StrEnum):
    """After which ends a plugin is started again."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class OnRestart(StrEnum):
    """What becomes of a plugin when one that it requires is restarted."""

    KEEP = "keep"
    RESTART = "restart"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """The bounds of restarting, in seconds but for `budget`, a count.

    Args:
        shortest: the least delay before a restart.
        longest: the greatest delay before a restart.
        budget: restarts allowed within `window`; one more and the plugin has failed.
        slow_retry: the delay between tries after that.
        stable: a run this long clears the record, so that the next delay is short again.
    """

    shortest: float = 0.5
    longest: float = 30.0
    budget: int = 5
    window: float = 60.0
    slow_retry: float = 300.0
    stable: float = 60.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It has failed; try again after `delay` seconds, or never when that is None."""

    delay: float | None


@dataclass(frozen=True, slots=True)
class Leave:
    """It has ended well and nobody wants it back."""


Verdict = Restart | GiveUp | Leave


@dataclass(slots=True)
class RestartRecord:
    """What is remembered of one plugin's ends, and the verdict on the next."""

    policy: RestartPolicy
    limits: RestartLimits = RestartLimits()
    _restarts: deque[float] = field(default_factory=deque)
    _streak: int = 0

    def ended(self, now: float, uptime: float, failed: bool, dice: float) -> Verdict:
        """Judges the end of a plugin that had run.

        Args:
            now: monotonic seconds.
            uptime: seconds it had run.
            failed: whether it ended in any way but exit status 0.
            dice: a random number from 0 up to 1.
        """
        if self.policy is RestartPolicy.NEVER or (self.policy is RestartPolicy.ON_FAILURE and not failed):
            return GiveUp(None) if failed else Leave()
        while self._restarts and self._restarts[0] <= now - self.limits.window:
            self._restarts.popleft()
        if len(self._restarts) >= self.limits.budget:
            self.forget()
            return GiveUp(self.limits.slow_retry)
        self._streak = 1 if uptime >= self.limits.stable else self._streak + 1
        self._restarts.append(now)
        return Restart(self._delay(dice))

    def slow_retry(self) -> float | None:
        """Seconds until another try of a start that failed for good; None when the policy is to leave it."""
        return None if self.policy is RestartPolicy.NEVER else self.limits.slow_retry

    def forget(self) -> None:
        """Clears the record, as an operator's start does."""
        self._restarts.clear()
        self._streak = 0

    def _delay(self, dice: float) -> float:
        # Beyond 2 to the 30th the bound has long been reached; unbounded powers would overflow after weeks.
        ceiling = min(self.limits.longest, self.limits.shortest * 2.0 ** min(self._streak, 30))
        return self.limits.shortest + dice * (ceiling - self.limits.shortest)
