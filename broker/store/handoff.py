"""Where the broker's threads leave writes and the writer thread fetches them."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from broker.store.backlog import Backlog
from broker.store.records import Loss
from broker.store.writes import Write


@dataclass(frozen=True, slots=True)
class Counts:
    """How many writes wait, landed, became superfluous and were lost."""

    pending: int
    written: int
    merged: int
    losses: Mapping[Loss, int]


class Handoff:
    """A backlog that several threads may use; nothing in it blocks but `take`."""

    def __init__(self, limit: int) -> None:
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._backlog = Backlog(limit)
        self._watchers: list[tuple[int, Future[None]]] = []
        self._losses: Counter[Loss] = Counter()
        self._written = 0
        self._refusing = False
        self._abandoned = False

    def submit(self, write: Write) -> Sequence[Write]:
        """Leave `write` for the writer thread; return what will never land because of it."""
        with self._changed:
            if self._refusing:
                self._losses[Loss.CLOSED] += 1
                return [write]
            dropped = self._backlog.put(write)
            if dropped:
                self._losses[Loss.OVERFLOW] += len(dropped)
            self._settle_watchers()
            self._changed.notify()
            return dropped

    def take(self, most: int, timeout: float) -> Sequence[Write]:
        """Fetch up to `most` writes; wait up to `timeout` seconds for the first one, or until `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._backlog) > 0 or self.stopping.is_set(), timeout)
            return self._backlog.take(most)

    def landed(self, count: int) -> None:
        """The oldest `count` of the writes that were fetched are in the database."""
        with self._changed:
            self._written += count
            self._backlog.settle(count)
            self._settle_watchers()

    def rejected(self) -> None:
        """The oldest of the writes that were fetched is one that the database will never take."""
        with self._changed:
            self._losses[Loss.REJECTED] += 1
            self._backlog.settle(1)
            self._settle_watchers()

    def put_back(self) -> None:
        """The writes that were fetched and not reported on are to be fetched again."""
        with self._changed:
            self._backlog.put_back()

    def mark(self) -> int:
        """Return a number that stands between the writes submitted so far and those to come."""
        with self._changed:
            return self._backlog.mark()

    def settled(self, mark: int) -> "Future[None]":
        """Return a future that is done when no write from before `mark` is pending, or when nobody fetches any more."""
        future: Future[None] = Future()
        with self._changed:
            self._watchers.append((mark, future))
            self._settle_watchers()
        return future

    def left(self, mark: int) -> int:
        """Return how many writes from before `mark` are still pending."""
        with self._changed:
            return self._backlog.before(mark)

    def refuse(self) -> None:
        """Accept no more writes."""
        with self._changed:
            self._refusing = True

    def abandon(self) -> None:
        """Nobody will fetch writes any more: those who wait for them learn it at once."""
        with self._changed:
            self._abandoned = True
            self._settle_watchers()

    def stop(self) -> None:
        """Make the writer thread end."""
        with self._changed:
            self.stopping.set()
            self._changed.notify_all()

    def counts(self) -> Counts:
        """Return the counters as they are now."""
        with self._changed:
            losses = dict(self._losses)
            return Counts(len(self._backlog), self._written, self._backlog.merged, losses)

    def _settle_watchers(self) -> None:
        waiting = []
        for mark, future in self._watchers:
            if not self._abandoned and not self._backlog.passed(mark):
                waiting.append((mark, future))
            elif future.set_running_or_notify_cancel():
                future.set_result(None)
        self._watchers = waiting
