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
        """The next member in turn that can take an event now, or else the one behind which the least waits."""
        turn, number = self.turn, len(self.members)
        turn.value += 1
        for step in range(number):
            member = self.members[(turn.value + step) % number]
            if member.ready():
                turn.value += step
                return member
        # Taking turns here would give half of the work to a member that has stopped reading, and block publishers
        # for ever though the other member still reads.
        return min((self.members[(turn.value + step) % number] for step in range(number)), key=_backlog)


def _backlog(member: Target) -> int:
    return member.lane.size
