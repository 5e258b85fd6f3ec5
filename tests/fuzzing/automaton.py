"""Whatever two ends say, their automata agree, and nothing happens that is not in the table.

An illegal packet changes neither of them; its speaker is told that the fault is its own, its hearer that it is the
other's. A session is open only after REGISTER and REGISTERED, and once it is closed nothing can be said.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame
from plugin_sdk.wire.errors import BusError, LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.session import SAYS, Session, Side, State
from tests.fuzzing.feed import Feed
from tests.fuzzing.vectors import frames

_KINDS: tuple[type[Struct], ...] = (*p.Packet.__args__, p.Unknown)
_RESET = 0xFF


def check(data: bytes) -> None:
    """Raise AssertionError, or anything else, when the bytes break the invariant."""
    ends = {side: Session(side) for side in Side}
    registered: list[Side] = []
    feed = Feed(data)
    while feed:
        choice = feed.byte()
        if choice == _RESET:
            registered.clear()
            for end in ends.values():
                end.reset()
            continue
        speaker = Side.BROKER if choice & 0x80 else Side.PEER
        kind = _KINDS[(choice & 0x7F) % len(_KINDS)]
        if _say(ends, speaker, kind) and kind in (p.Register, p.Registered):
            registered.append(speaker)
        states = {end.state for end in ends.values()}
        assert len(states) == 1, f"the two ends are {states} after {kind.__name__} of the {speaker.value}"
        if State.OPEN in states:
            assert registered[0] is Side.PEER, "open without REGISTER"
            assert Side.BROKER in registered, "open without REGISTERED"
        if State.NEW in states:
            registered.clear()


def seeds() -> Iterator[bytes]:
    """Conversations of the kinds in the vectors, opened first and not."""
    opened = bytes([_KINDS.index(p.Register), 0x80 | _KINDS.index(p.Registered)])
    for frame in frames("good"):
        kinds = bytes(_KINDS.index(type(packet)) for packet in decode_frame(frame)[1])
        yield kinds
        yield opened + kinds
        yield opened + bytes(0x80 | kind for kind in kinds) + bytes([_RESET]) + kinds


def _say(ends: dict[Side, Session], speaker: Side, kind: type[Struct]) -> bool:
    """Let one end say something to both automata; returns whether it was allowed."""
    before = ends[speaker].state
    allowed = kind in SAYS[speaker][before]
    for side, end in ends.items():
        error = _fault(end, speaker, kind)
        if error is None:
            assert allowed
            assert before is not State.CLOSED, "something was said in a closed session"
        else:
            assert not allowed
            assert end.state is before, "a refused packet has changed the state"
            assert type(error) is (LocalProtocolError if side is speaker else RemoteProtocolError), error
            assert error.code == "bad_packet"
    return allowed


def _fault(end: Session, speaker: Side, kind: type[Struct]) -> BusError | None:
    try:
        end.said(speaker, kind)
    except BusError as error:
        return error
    return None
