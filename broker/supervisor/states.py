"""The states of a plugin's life and every way from one to another, as one table."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType


class State(StrEnum):
    """What is seen of a plugin; what is wanted of it is `Desired`."""

    DISABLED = "disabled"
    STOPPED = "stopped"
    WAITING = "waiting"
    SPAWNING = "spawning"
    REGISTERING = "registering"
    INITIALIZING = "initializing"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    FAILED = "failed"


class Desired(StrEnum):
    """What the operator wants of a plugin."""

    RUNNING = "running"
    STOPPED = "stopped"


class Trigger(StrEnum):
    """What can happen to a plugin."""

    START = "start"
    SLOT = "slot"
    SPAWNED = "spawned"
    REGISTERED = "registered"
    INITIALIZED = "initialized"
    STARTED = "started"
    RETRY = "retry"
    LOST = "lost"
    EXITED = "exited"
    FAIL = "fail"
    ADOPT = "adopt"
    SWITCHED = "switched"
    STOP = "stop"
    GONE = "gone"
    DISABLE = "disable"
    ENABLE = "enable"


class Cause(StrEnum):
    """Why a plugin has failed."""

    MANIFEST = "manifest"
    DEPENDENCY = "dependency"
    QUARANTINE = "quarantine"
    START = "start"
    CRASHES = "crashes"
    ENDED = "ended"
    LIMIT = "limit"
    DEFECT = "defect"


class ImpossibleTransition(RuntimeError):
    """Something happened to a plugin that its state rules out: a defect of the supervisor."""


class RegisterStatus(IntEnum):
    """The values of `register_status` in the table `t_plugin` (PLG-4)."""

    UNREGISTERED = 0
    REGISTERING = 1
    REGISTERED = 2
    FAILED = 3


_COMING_UP = (State.SPAWNING, State.REGISTERING, State.INITIALIZING, State.STARTING)
_AT_REST = (State.DISABLED, State.STOPPED, State.FAILED)
_ALIVE = (State.WAITING, *_COMING_UP, State.RUNNING, State.BACKOFF)


def _from_each(states: tuple[State, ...], trigger: Trigger, to: State) -> dict[tuple[State, Trigger], State]:
    return {(state, trigger): to for state in states}


TRANSITIONS: Mapping[tuple[State, Trigger], State] = MappingProxyType(
    {
        # The way up. BACKOFF is the pause before another try, of a start as of a plugin that had run.
        **_from_each((State.STOPPED, State.FAILED, State.BACKOFF), Trigger.START, State.WAITING),
        (State.WAITING, Trigger.SLOT): State.SPAWNING,
        (State.SPAWNING, Trigger.SPAWNED): State.REGISTERING,
        (State.REGISTERING, Trigger.REGISTERED): State.INITIALIZING,
        (State.INITIALIZING, Trigger.INITIALIZED): State.STARTING,
        (State.STARTING, Trigger.STARTED): State.RUNNING,
        # A process that the operator started by hand comes in by its registration.
        **_from_each(_AT_REST, Trigger.ADOPT, State.INITIALIZING),
        # A new version takes over, whatever has become of the old one.
        **_from_each((State.STOPPED, *_ALIVE, State.FAILED), Trigger.SWITCHED, State.RUNNING),
        # What goes wrong. LOST: the process lives, its session does not; it may register again.
        (State.RUNNING, Trigger.LOST): State.REGISTERING,
        **_from_each((*_COMING_UP, State.RUNNING), Trigger.RETRY, State.BACKOFF),
        **_from_each((State.STOPPED, *_ALIVE, State.FAILED), Trigger.FAIL, State.FAILED),
        # EXITED: it ended by itself, and its restart policy or its owner is content with that.
        **_from_each((*_COMING_UP, State.RUNNING), Trigger.EXITED, State.STOPPED),
        # The way down.
        **_from_each((*_ALIVE, State.FAILED), Trigger.STOP, State.STOPPING),
        (State.STOPPING, Trigger.GONE): State.STOPPED,
        **_from_each((State.STOPPED, State.FAILED), Trigger.DISABLE, State.DISABLED),
        (State.DISABLED, Trigger.ENABLE): State.STOPPED,
    }
)

# STOPPING has none: what the database says stays true until the plugin is gone.
REGISTER_STATUS: Mapping[State, RegisterStatus] = MappingProxyType(
    {
        State.DISABLED: RegisterStatus.UNREGISTERED,
        State.STOPPED: RegisterStatus.UNREGISTERED,
        State.WAITING: RegisterStatus.REGISTERING,
        **dict.fromkeys(_COMING_UP, RegisterStatus.REGISTERING),
        State.BACKOFF: RegisterStatus.REGISTERING,
        State.RUNNING: RegisterStatus.REGISTERED,
        State.FAILED: RegisterStatus.FAILED,
    }
)

# A process has begun to run, or one that ran already has come in.
BEGINS = frozenset({Trigger.SPAWNED, Trigger.ADOPT})

# There is no process.
PAUSED = frozenset({*_AT_REST, State.WAITING, State.BACKOFF})

# Nothing moves by itself from here, so whoever waits for a start or a stop has its answer.
SETTLED = frozenset({*_AT_REST, State.RUNNING})

# The supervisor has work in hand for these.
ACTIVE = frozenset({*_ALIVE, State.STOPPING})


def next_state(state: State, trigger: Trigger) -> State:
    """The state that `trigger` leads to.

    Raises:
        ImpossibleTransition: the table has no such row.
    """
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise ImpossibleTransition(f"a plugin that is {state} cannot meet {trigger.name}") from None
