"""All that waits at the broker, for all peers together: one sum with one bound.

Every lane, outbox and caller has a bound of its own, but a thousand peers that each keep to theirs fill the memory all
the same. At this bound nothing that can be dropped is kept, no request is queued, and what must not be dropped makes
the router end the session for which most waits.
"""

from __future__ import annotations

from plugin_sdk.wire.outbox import Outbox


class Backlog:
    """Bytes of events that wait for credit, of requests that wait for an instance, of frames that no transport takes.

    Whoever holds something adds it to `size`, and takes it off again. Only what waits is counted, so that what goes out
    at once costs nothing here.

    Args:
        limit: the most bytes that may wait.
    """

    __slots__ = ("_stuck", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._stuck: dict[Outbox, int] = {}

    @property
    def is_stuck(self) -> bool:
        """Whether there is a peer whose transport takes nothing."""
        return bool(self._stuck)

    def takes(self, amount: int) -> bool:
        """Whether something may wait that its sender can be refused."""
        return self.size + amount <= self.limit

    def takes_droppable(self, amount: int) -> bool:
        """Whether an event may wait that can be dropped."""
        # A quarter is kept for what cannot, or peers that may lose events would cost others their sessions.
        return self.size + amount <= self.limit - self.limit // 4

    def report(self, outbox: Outbox) -> None:
        """Count what waits in an outbox for its transport, from now on and until it is found empty or forgotten."""
        pending = outbox.pending_bytes
        self.size += pending - self._stuck.pop(outbox, 0)
        if pending:
            self._stuck[outbox] = pending

    def refresh(self) -> None:
        """Look at the outboxes again: nobody says when a transport goes on."""
        for outbox in list(self._stuck):
            self.report(outbox)

    def stuck(self, outbox: Outbox) -> int:
        """What is counted of an outbox."""
        return self._stuck.get(outbox, 0)

    def forget(self, outbox: Outbox) -> None:
        """A session has ended."""
        self.size -= self._stuck.pop(outbox, 0)
