"""The writes that wait for the database, oldest first, within a bound (pure: no locks, no clock).

The bound is a number of writes and of bytes. At the bound a status that a later one supersedes goes first, because
only the last one will be visible anyhow; then the oldest audit entry. What is left when neither exists are the newest
facts about distinct plugins: they stay, so the backlog may exceed its bound by at most three writes per plugin.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain

from broker.store.writes import Kind, Write


class Backlog:
    """A bounded queue of writes in which later writes can make earlier ones superfluous."""

    def __init__(self, limit: int, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._bytes = 0
        self._next = 0
        self._taken: list[tuple[int, Write]] = []
        self._waiting: OrderedDict[int, Write] = OrderedDict()
        self._newest: dict[tuple[Kind, str], int] = {}
        # Ordered sets of tickets. A plain dict would search past every ticket that was ever removed at its front.
        self._superseded: OrderedDict[int, None] = OrderedDict()
        self._audits: OrderedDict[int, None] = OrderedDict()
        self.merged = 0

    def __len__(self) -> int:
        return len(self._taken) + len(self._waiting)

    def put(self, write: Write) -> Sequence[Write]:
        """Append `write`; return the audit entries that had to go for it."""
        ticket, self._next = self._next, self._next + 1
        self._waiting[ticket] = write
        self._bytes += write.size
        if write.key is None:
            self._audits[ticket] = None
        else:
            older = self._newest.get(write.key)
            if older is not None:
                self._superseded[older] = None
            self._newest[write.key] = ticket
        return list(self._make_room())

    def take(self, most: int) -> Sequence[Write]:
        """Hand out up to `most` of the oldest writes; `settle` or `put_back` must follow."""
        while self._waiting and len(self._taken) < most:
            ticket, write = self._waiting.popitem(last=False)
            self._forget(ticket, write)
            self._taken.append((ticket, write))
        return [write for _, write in self._taken]

    def settle(self, count: int) -> None:
        """The oldest `count` writes that were handed out need no further care."""
        self._bytes -= sum(write.size for _, write in self._taken[:count])
        del self._taken[:count]

    def put_back(self) -> None:
        """Those handed out and not settled wait again, at the front and in their order."""
        for ticket, write in reversed(self._taken):
            self._waiting[ticket] = write
            self._waiting.move_to_end(ticket, last=False)
            if write.key is None:
                self._push_front(self._audits, ticket)
            elif write.key in self._newest:
                self._push_front(self._superseded, ticket)
            else:
                self._newest[write.key] = ticket
        self._taken.clear()

    def mark(self) -> int:
        """Return a number that stands between the writes put so far and those to come."""
        return self._next

    def before(self, mark: int) -> int:
        """Return how many writes from before `mark` are still here."""
        tickets = chain((ticket for ticket, _ in self._taken), self._waiting)
        return sum(1 for ticket in tickets if ticket < mark)

    def passed(self, mark: int) -> bool:
        """Return whether every write from before `mark` is gone."""
        oldest = self._taken[0][0] if self._taken else next(iter(self._waiting), self._next)
        return oldest >= mark

    def _make_room(self) -> Iterator[Write]:
        while len(self) > self._limit or self._bytes > self._max_bytes:
            if self._superseded:
                self._remove(self._superseded.popitem(last=False)[0])
                self.merged += 1
            elif self._audits:
                yield self._remove(self._audits.popitem(last=False)[0])
            else:
                return

    def _remove(self, ticket: int) -> Write:
        write = self._waiting.pop(ticket)
        self._bytes -= write.size
        return write

    def _forget(self, ticket: int, write: Write) -> None:
        self._audits.pop(ticket, None)
        self._superseded.pop(ticket, None)
        if write.key is not None and self._newest.get(write.key) == ticket:
            del self._newest[write.key]

    @staticmethod
    def _push_front(tickets: OrderedDict[int, None], ticket: int) -> None:
        tickets[ticket] = None
        tickets.move_to_end(ticket, last=False)
