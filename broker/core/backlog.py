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
    at once costs nothing here. `stuck` holds the outboxes that their transport did not empty, with what is counted of
    each; `droppable` is how much may wait when an event that can be dropped is added.

    Args:
        limit: the most bytes that may wait.
    """

    __slots__ = ("droppable", "limit", "size", "stuck")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # A quarter is kept for what cannot be dropped, or peers that may lose events would cost others their sessions.
        self.droppable = limit - limit // 4
        self.size = 0
        self.stuck: dict[Outbox, int] = {}

    def takes(self, amount: int) -> bool:
        """Whether something may wait that its sender can be refused."""
        return self.size + amount <= self.limit

    def report(self, outbox: Outbox) -> None:
        """Count what waits in an outbox for its transport, from now on and until it is found empty or forgotten."""
        pending = outbox.pending_bytes
        self.size += pending - self.stuck.pop(outbox, 0)
        if pending:
            self.stuck[outbox] = pending

    def refresh(self) -> None:
        """Look at the outboxes again: nobody says when a transport goes on."""
        for outbox in list(self.stuck):
            self.report(outbox)

    def forget(self, outbox: Outbox) -> None:
        """A session has ended."""
        self.size -= self.stuck.pop(outbox, 0)
