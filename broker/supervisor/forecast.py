"""What a stop of all plugins may take at worst, told before it happens (`broker check`)."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from broker.supervisor.discovery import Installed
from broker.supervisor.plan import Plan
from broker.supervisor.timing import StepTimes, Timing


def stop_warnings(plugins: Iterable[Installed], plan: Plan, timing: Timing, limit: float, setting: str) -> list[str]:
    """Times that are longer than the time around them, which then cuts them short.

    Args:
        limit: seconds that stopping all plugins has for certain.
        setting: what `limit` follows from, for the texts.
    """
    times = {
        each.plugin_id: timing.of(each.manifest)
        for each in plugins
        if each.manifest and each.manifest.enabled and each.plugin_id not in plan.problems
    }
    found = [text for name, each in sorted(times.items()) for text in _own(name, each, limit, setting)]
    if found or not times:
        return found
    return list(_chain(times, plan, limit, setting))


def _own(name: str, times: StepTimes, limit: float, setting: str) -> Iterator[str]:
    if times.cleanup >= times.stop:
        yield (
            f"plugin {name!r}: timeouts.cleanup = {times.cleanup:g} s leaves nothing of timeouts.stop = "
            f"{times.stop:g} s, which then cuts it short: make the stop longer"
        )
    if times.stop > limit:
        yield (
            f"plugin {name!r} may take {times.stop:g} s to stop, but {setting} leaves {limit:.1f} s for it, "
            f"which then cuts it short: raise that, or lower its timeouts.cleanup and timeouts.stop"
        )


def _chain(times: dict[str, StepTimes], plan: Plan, limit: float, setting: str) -> Iterator[str]:
    """The longest way down, where each plugin waits for those that need it."""
    longest: dict[str, tuple[float, tuple[str, ...]]] = {}
    for name in (name for level in plan.levels for name in level if name in times):
        below = max((longest[each] for each in plan.before.get(name, ()) if each in longest), default=(0.0, ()))
        longest[name] = (below[0] + times[name].stop, (name, *below[1]))
    total, names = max(longest.values())
    if total > limit and any(pairwise(names)):
        yield (
            f"plugins {', then '.join(names)} stop one after the other and may take {total:g} s, but {setting} "
            f"leaves {limit:.1f} s for them, which then cuts them short: raise that, or lower their timeouts"
        )
