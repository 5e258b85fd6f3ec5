"""Queue groups: which member gets an event."""

from __future__ import annotations

from broker.core.flow import Target


class Turn:
    """Whose turn it is in a queue group, shared by all subjects: many subjects of one event each must rotate too."""

    __slots__ = ("value",)

    def __init__(self, seed: int) -> None:
        self.value = seed


class Group:
    """The members of one queue group that cover a subject."""

    __slots__ = ("members", "turn")

    def __init__(self, members: list[Target], turn: Turn) -> None:
        self.members = members
        self.turn = turn

    def choose(self) -> Target:
        """The next member in turn that keeps up, or else the one that lags least."""
        turn, number = self.turn, len(self.members)
        turn.value += 1
        for step in range(number):
            member = self.members[(turn.value + step) % number]
            if member.keeps_up():
                turn.value += step
                return member
        # Taking turns here would give a member that has stopped reading more and more events, and withhold more and
        # more credit for them, until publishers wait for it for ever though the others still read.
        return min((self.members[(turn.value + step) % number] for step in range(number)), key=_lag)


def _lag(member: Target) -> tuple[int, int]:
    return member.lane.size, -member.outbox.credit
