"""The table of states: what is not in it cannot happen, and nothing in it leads into a trap."""

import pytest

from broker.supervisor.states import (
    ACTIVE,
    REGISTER_STATUS,
    SETTLED,
    TRANSITIONS,
    ImpossibleTransition,
    State,
    Trigger,
    next_state,
)


def reachable_from(start: State) -> set[State]:
    seen = {start}
    while True:
        more = {to for (state, _), to in TRANSITIONS.items() if state in seen} - seen
        if not more:
            return seen
        seen |= more


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_pair_is_either_in_the_table_or_refused_by_name(state: State, trigger: Trigger) -> None:
    if (state, trigger) in TRANSITIONS:
        assert next_state(state, trigger) is TRANSITIONS[state, trigger]
        return
    with pytest.raises(ImpossibleTransition, match=f"is {state} cannot meet {trigger.name}"):
        next_state(state, trigger)


def test_every_state_is_reached_from_stopped_and_leads_back_to_it() -> None:
    assert reachable_from(State.STOPPED) == set(State)
    for state in State:
        assert State.STOPPED in reachable_from(state)


def test_every_trigger_has_a_row() -> None:
    assert {trigger for _, trigger in TRANSITIONS} == set(Trigger)


def test_the_good_life_goes_through_every_step_in_order() -> None:
    state, seen = State.STOPPED, []
    for trigger in ("start", "slot", "spawned", "registered", "initialized", "started", "stop", "gone"):
        state = next_state(state, Trigger(trigger))
        seen.append(str(state))
    assert seen == [
        "waiting",
        "spawning",
        "registering",
        "initializing",
        "starting",
        "running",
        "stopping",
        "stopped",
    ]


def test_whatever_is_active_can_be_stopped_and_nothing_comes_up_while_stopping() -> None:
    for state in ACTIVE - {State.STOPPING}:
        assert next_state(state, Trigger.STOP) is State.STOPPING
    assert {to for (state, _), to in TRANSITIONS.items() if state is State.STOPPING} == {State.STOPPED}


def test_every_state_is_settled_or_in_work() -> None:
    assert set(State) == SETTLED | ACTIVE
    assert {State.RUNNING} == SETTLED & ACTIVE


def test_only_running_counts_as_registered_and_only_failed_as_failed() -> None:
    assert [state for state, status in REGISTER_STATUS.items() if status == 2] == [State.RUNNING]
    assert [state for state, status in REGISTER_STATUS.items() if status == 3] == [State.FAILED]
    assert State.STOPPING not in REGISTER_STATUS
