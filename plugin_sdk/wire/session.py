"""The life of a session as one table, the same for both ends of the wire.

Rule: everything that decides whether a packet is allowed now lives in `SAYS`; what is not in the table cannot
happen. A test walks all of it.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError


class State(Enum):
    """Where a session stands."""

    NEW = "new"
    REGISTERING = "registering"
    OPEN = "open"
    CLOSED = "closed"


class Side(Enum):
    """Who speaks."""

    PEER = "peer"
    BROKER = "broker"


_NEW, _REGISTERING, _OPEN, _CLOSED = State.NEW, State.REGISTERING, State.OPEN, State.CLOSED

SAYS: dict[Side, dict[State, dict[type[Struct], State]]] = {
    Side.PEER: {
        _NEW: {p.Register: _REGISTERING},
        # A retry of a REGISTER whose answer got lost repeats it.
        _REGISTERING: {p.Register: _REGISTERING},
        _OPEN: {
            p.Ping: _OPEN,
            p.Pong: _OPEN,
            p.Subscribe: _OPEN,
            p.Unsubscribe: _OPEN,
            p.Publish: _OPEN,
            p.Credit: _OPEN,
            p.Serve: _OPEN,
            p.Withdraw: _OPEN,
            p.Call: _OPEN,
            p.Reply: _OPEN,
            p.Chunk: _OPEN,
            p.Error: _OPEN,
            p.Cancel: _OPEN,
            p.Unknown: _OPEN,
            p.Goodbye: _CLOSED,
        },
        _CLOSED: {},
    },
    Side.BROKER: {
        _NEW: {p.Refused: _NEW},
        _REGISTERING: {p.Registered: _OPEN, p.Refused: _NEW},
        _OPEN: {
            p.Ping: _OPEN,
            p.Pong: _OPEN,
            p.Ok: _OPEN,
            p.Event: _OPEN,
            p.Credit: _OPEN,
            p.Request: _OPEN,
            p.Reply: _OPEN,
            p.Chunk: _OPEN,
            p.Error: _OPEN,
            p.Cancel: _OPEN,
            p.Unknown: _OPEN,
            # The answer to a second REGISTER, when the first answer was merely slow.
            p.Registered: _OPEN,
            # The broker was restarted, or gave this session up: register again.
            p.Refused: _NEW,
            p.Goodbye: _CLOSED,
        },
        _CLOSED: {},
    },
}


class Session:
    """The automaton of one session, as seen by `own` side."""

    __slots__ = ("own", "state")

    def __init__(self, own: Side) -> None:
        self.own = own
        self.state = State.NEW

    def said(self, speaker: Side, kind: type[Struct]) -> State:
        """Advance by a packet that `speaker` sends or sent, and return the new state.

        Raises:
            LocalProtocolError: this side may not send that now.
            RemoteProtocolError: the other side should not have.
        """
        following = SAYS[speaker][self.state].get(kind)
        if following is None:
            text = f"{speaker.value} may not send {kind.__name__} while the session is {self.state.value}"
            blame = LocalProtocolError if speaker is self.own else RemoteProtocolError
            raise blame("bad_packet", text)
        self.state = following
        return following

    def reset(self) -> None:
        """Begin anew, after the connection was lost."""
        self.state = State.NEW
