"""Who received what: finds lost, doubled and reordered events, and requests that did not run once."""

from collections.abc import Callable
from time import monotonic_ns

from tools.benchmark.payload import BEGIN, END, PROBE


def _nothing() -> None:
    return None


class Ledger:
    """Checks, event by event, that a receiver is given every event of every publisher once and in order.

    The expected case costs one comparison, because it is part of what is measured; everything else is
    sorted out in `_unexpected`.
    """

    def __init__(
        self,
        publishers: int,
        count: int,
        on_ready: Callable[[], None] = _nothing,
        on_complete: Callable[[], None] = _nothing,
    ) -> None:
        """Expect `count` events of each of `publishers` publishers.

        `on_ready` is called once a probe of every publisher has arrived, `on_complete` once the end
        marker of every publisher has.
        """
        self.complete = False
        self.began_ns = 0
        self.ended_ns = 0
        self._count = count
        self._next = [0] * publishers
        self._missing: list[set[int]] = [set() for _ in range(publishers)]
        self._doubled = [0] * publishers
        self._reordered = [0] * publishers
        self._unknown: list[int] = []
        self._unheard = set(range(publishers))
        self._silent = set(range(publishers))
        self._running = set(range(publishers))
        self._on_ready = on_ready
        self._on_complete = on_complete

    def take(self, publisher: int, number: int) -> None:
        """Enter one delivered event."""
        if number == self._next[publisher]:
            self._next[publisher] = number + 1
        else:
            self._unexpected(publisher, number)

    def progress(self) -> int:
        """A number that grows while events arrive."""
        return sum(self._next) - len(self._unheard) - len(self._running)

    def faults(self) -> list[str]:
        """Everything that went wrong, a sentence each; empty when every event came once and in order."""
        found = [f"an event with the unknown id {number}" for number in self._unknown]
        for publisher in range(len(self._next)):
            found += self._faults_of(publisher)
        return found

    def _unexpected(self, publisher: int, number: int) -> None:
        if number == PROBE:
            self._hear(publisher)
        elif number == BEGIN:
            self._begin(publisher)
        elif number == END:
            self._end(publisher)
        elif not 0 <= number < self._count:
            self._unknown.append(number)
        else:
            self._out_of_turn(publisher, number)

    def _out_of_turn(self, publisher: int, number: int) -> None:
        expected = self._next[publisher]
        if number > expected:
            self._missing[publisher].update(range(expected, number))
            self._next[publisher] = number + 1
        elif number in self._missing[publisher]:
            self._missing[publisher].remove(number)
            self._reordered[publisher] += 1
        else:
            self._doubled[publisher] += 1

    def _hear(self, publisher: int) -> None:
        if publisher in self._unheard:
            self._unheard.remove(publisher)
            if not self._unheard:
                self._on_ready()

    def _begin(self, publisher: int) -> None:
        self.began_ns = self.began_ns or monotonic_ns()
        if publisher not in self._silent:
            self._doubled[publisher] += 1
        elif self._next[publisher]:
            self._reordered[publisher] += 1
        self._silent.discard(publisher)

    def _end(self, publisher: int) -> None:
        if publisher not in self._running:
            self._doubled[publisher] += 1
            return
        if self._next[publisher] < self._count:
            self._reordered[publisher] += 1
        self._running.remove(publisher)
        if not self._running:
            self.ended_ns = monotonic_ns()
            self.complete = True
            self._on_complete()

    def _faults_of(self, publisher: int) -> list[str]:
        beyond = self._next[publisher] - self._count
        counted = {
            "lost": len(self._missing[publisher]) + max(0, -beyond),
            "doubled": self._doubled[publisher],
            "reordered": self._reordered[publisher],
            "more than were sent": max(0, beyond),
        }
        found = [
            f"publisher {publisher}: {number} of {self._count} events {what}"
            for what, number in counted.items()
            if number
        ]
        if publisher in self._silent:
            found.append(f"publisher {publisher}: the begin of its events never came")
        if publisher in self._running:
            found.append(f"publisher {publisher}: the end of its events never came")
        return found


class RequestLedger:
    """Checks at the server that every request ran exactly once, in whatever order."""

    def __init__(self, count: int) -> None:
        self._runs = [0] * count
        self._unknown = 0

    def take(self, number: int) -> None:
        """Enter one request; probes and the end marker are not counted."""
        if 0 <= number < len(self._runs):
            self._runs[number] += 1
        elif number not in (PROBE, END):
            self._unknown += 1

    def progress(self) -> int:
        """A number that grows while requests arrive."""
        return sum(self._runs)

    def faults(self) -> list[str]:
        """Everything that went wrong, a sentence each."""
        never = self._runs.count(0)
        again = sum(1 for runs in self._runs if runs > 1)
        total = len(self._runs)
        found = [f"{never} of {total} requests never reached the server"] if never else []
        if again:
            found.append(f"{again} of {total} requests ran more than once")
        if self._unknown:
            found.append(f"{self._unknown} requests had an unknown id")
        return found
