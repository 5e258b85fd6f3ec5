"""The automaton of a session: the whole table, walked."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Struct

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from plugin_sdk.wire.session import SAYS, Session, Side, State

KINDS = (*p.Packet.__args__, p.Unknown)
OTHER = {Side.PEER: Side.BROKER, Side.BROKER: Side.PEER}
STEPS = list(product(Side, State, KINDS))
ALLOWED = [step for step in STEPS if step[2] in SAYS[step[0]][step[1]]]
FORBIDDEN = [step for step in STEPS if step not in ALLOWED]


def session_in(state: State, own: Side) -> Session:
    session = Session(own)
    session.state = state
    return session


def name(value: object) -> str:
    return value.__name__ if isinstance(value, type) else str(getattr(value, "value", value))


def test_the_table_has_every_state_for_both_sides_and_nothing_but_packets() -> None:
    assert SAYS.keys() == set(Side)
    for rows in SAYS.values():
        assert rows.keys() == set(State)
        assert all(kind in KINDS for row in rows.values() for kind in row)


def test_every_kind_can_be_said_by_somebody_at_some_time() -> None:
    assert {kind for _, _, kind in ALLOWED} == set(KINDS)


@pytest.mark.parametrize(("speaker", "state", "kind"), ALLOWED, ids=name)
def test_what_is_allowed_leads_to_the_state_of_the_table_on_both_ends(
    speaker: Side, state: State, kind: type[Struct]
) -> None:
    following = SAYS[speaker][state][kind]
    for own in Side:
        session = session_in(state, own)
        assert session.said(speaker, kind) is following
        assert session.state is following


@pytest.mark.parametrize(("speaker", "state", "kind"), FORBIDDEN, ids=name)
def test_what_is_not_allowed_changes_nothing_and_blames_the_speaker(
    speaker: Side, state: State, kind: type[Struct]
) -> None:
    for own, blame in ((speaker, LocalProtocolError), (OTHER[speaker], RemoteProtocolError)):
        session = session_in(state, own)
        with pytest.raises(blame) as error:
            session.said(speaker, kind)
        assert error.value.code == "bad_packet"
        assert error.value.text == f"{speaker.value} may not send {kind.__name__} while the session is {state.value}"
        assert session.state is state


def test_a_registered_session_lives_until_goodbye() -> None:
    session = Session(Side.PEER)
    session.said(Side.PEER, p.Register)
    session.said(Side.BROKER, p.Registered)
    session.said(Side.PEER, p.Publish)
    session.said(Side.BROKER, p.Goodbye)
    assert session.state is State.CLOSED


def test_a_peer_that_was_refused_may_register_again() -> None:
    session = Session(Side.PEER)
    for answer in (p.Refused, p.Registered):
        session.said(Side.PEER, p.Register)
        session.said(Side.BROKER, answer)
    assert session.state is State.OPEN


def test_a_lost_connection_begins_anew() -> None:
    for state in State:
        session = session_in(state, Side.PEER)
        session.reset()
        assert session.state is State.NEW


class TwoEnds(RuleBasedStateMachine):
    """A broker and a peer that hear each other without delay never disagree about the state."""

    def __init__(self) -> None:
        super().__init__()
        self.peer, self.broker = Session(Side.PEER), Session(Side.BROKER)

    @rule(speaker=st.sampled_from(Side), kind=st.sampled_from(KINDS))
    def say(self, speaker: Side, kind: type[Struct]) -> None:
        speaking, hearing = (self.peer, self.broker) if speaker is Side.PEER else (self.broker, self.peer)
        try:
            speaking.said(speaker, kind)
        except ProtocolError as error:
            # A correct side does not send what its own automaton forbids.
            assert isinstance(error, LocalProtocolError)  # noqa: PT017 - the rule goes on either way
            return
        hearing.said(speaker, kind)

    @rule()
    def lose_the_connection(self) -> None:
        self.peer.reset()
        self.broker.reset()

    @invariant()
    def both_are_in_the_same_state(self) -> None:
        assert self.peer.state is self.broker.state


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
