"""What part of the time for a shutdown each phase has; every inner time follows from the one outer time.

A phase that needs less leaves the rest to those after it; none can take what is set aside for a later one.
"""

from __future__ import annotations

from dataclasses import dataclass

# Of its window a phase is told this part, so that it can end by itself, and in order, before it is cut off.
INNER = 0.9


@dataclass(frozen=True, slots=True)
class Window:
    """When a phase must be over, in parts of the time for the whole shutdown.

    Args:
        by: counted from the beginning of the shutdown.
        most: counted from the beginning of the phase.
    """

    by: float
    most: float = 1.0

    def secs(self, total: float, spent: float) -> float:
        """Seconds that the phase may take.

        Args:
            total: seconds for the whole shutdown.
            spent: seconds of it that are gone already.
        """
        return max(0.0, min(self.by * total - spent, self.most * total))


FINISH_REQUESTS = Window(by=0.4)
STOP_PLUGINS = Window(by=0.85)
# A database that is down seldom comes back just now, so it is not given all the time that others have left.
FLUSH_WRITES = Window(by=0.92, most=0.2)
CLOSE_BUS = Window(by=0.96, most=0.1)
CLOSE_DATABASE = Window(by=1.0, most=0.1)

IN_ORDER = (FINISH_REQUESTS, STOP_PLUGINS, FLUSH_WRITES, CLOSE_BUS, CLOSE_DATABASE)


def plugin_secs(total: float) -> float:
    """Seconds that stopping the plugins has for certain, even when requests use up all of their time."""
    return STOP_PLUGINS.secs(total, FINISH_REQUESTS.by * total) * INNER
