"""A unit: since when it runs, whatever becomes of its session meanwhile."""

from pathlib import Path

from broker.supervisor.logs import LogWriter
from broker.supervisor.restart import RestartLimits
from broker.supervisor.states import Trigger
from broker.supervisor.unit import Unit
from tests.unit.supervisor.test_roster import Nowhere

UP = (Trigger.START, Trigger.SLOT, Trigger.SPAWNED, Trigger.REGISTERED, Trigger.INITIALIZED, Trigger.STARTED)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def times_after(unit: Unit, clock: Clock, *triggers: Trigger) -> tuple[float | None, float]:
    """Uptime and time in the state after these, each of which takes ten seconds."""
    for trigger in triggers:
        clock.now += 10
        unit.move(trigger)
    view = unit.view()
    return view.uptime, view.since


def test_uptime_counts_from_the_start_of_the_process_and_not_from_the_present_state(tmp_path: Path) -> None:
    clock = Clock()
    unit = Unit("hello", LogWriter(tmp_path).log_of, Nowhere(), RestartLimits(), clock)
    assert unit.view().uptime is None
    assert times_after(unit, clock, *UP) == (30, 0)
    assert times_after(unit, clock, Trigger.LOST) == (40, 0)
    assert times_after(unit, clock, *UP[3:]) == (70, 0)
    clock.now += 5
    assert times_after(unit, clock) == (75, 5)
    assert times_after(unit, clock, Trigger.STOP) == (85, 0)
    assert times_after(unit, clock, Trigger.GONE) == (None, 0)


def test_a_plugin_that_waits_for_another_try_has_no_uptime_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    clock = Clock()
    unit = Unit("hello", LogWriter(tmp_path).log_of, Nowhere(), RestartLimits(), clock)
    assert times_after(unit, clock, *UP, Trigger.RETRY) == (None, 0)
    assert times_after(unit, clock, *UP) == (30, 0)


def test_one_that_was_started_by_hand_is_up_since_it_came_in(tmp_path: Path) -> None:
    clock = Clock()
    unit = Unit("guest", LogWriter(tmp_path).log_of, Nowhere(), RestartLimits(), clock)
    assert times_after(unit, clock, Trigger.ADOPT, Trigger.INITIALIZED, Trigger.STARTED) == (20, 0)
