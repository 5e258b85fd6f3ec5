"""The ledgers of a run, read: what each process did and saw, ready to be compared."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tools.disorder.cast import MEMBERS, Member
from tools.disorder.ledger import now, read_lines

FOREVER = 2**63


@dataclass(slots=True)
class Span:
    """One session of a process: from when everything in it was in force until its end was noticed.

    `epoch` is how many sessions the process has lost before; `lasted` whether it still stood when the run ended.
    """

    session: int
    epoch: int
    begin: int
    end: int = FOREVER

    @property
    def lasted(self) -> bool:
        """Whether nothing has ended it."""
        return self.end == FOREVER


@dataclass(slots=True)
class Publication:
    """One event as its publisher knows it; `session` is None when it cannot know whether it went out."""

    number: int
    weight: int
    begun: int
    done: int = FOREVER
    session: int | None = None
    refused: str = ""


@dataclass(slots=True)
class Receipt:
    """One event that a subscriber got."""

    time: int
    epoch: int
    number: int


@dataclass(slots=True)
class Request:
    """One request as its caller knows it; `outcomes` should have exactly one entry."""

    begun: int
    timeout: int
    outcomes: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class Book:
    """The ledger of one process. Times are microseconds.

    `left` is when it was told to stop, `exit` its status if it ended by itself, `first` and `last` are the times of
    the first and last line.
    """

    who: str
    member: Member
    spans: list[Span] = field(default_factory=list)
    published: dict[int, Publication] = field(default_factory=dict)
    receipts: dict[str, list[Receipt]] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    quiet: bool = False
    left: int = FOREVER
    exit: str | None = None
    first: int = FOREVER
    last: int = 0

    def enter(self, line: list[str]) -> None:
        """Take one line of the ledger."""
        self.last = time = int(line[0])
        self.first = min(self.first, time)
        match line[1:]:
            case ["event", epoch, publisher, number]:
                self.receipts.setdefault(publisher, []).append(Receipt(time, int(epoch), int(number)))
            case ["publish", number, weight]:
                self.published[int(number)] = Publication(int(number), int(weight), time)
            case ["published", number, session]:
                publication = self.published[int(number)]
                publication.done, publication.session = time, int(session) or None
            case ["unpublished", number, code]:
                self.published[int(number)].refused = code
            case ["call", call, timeout]:
                self.requests[call] = Request(time, int(timeout))
            case ["ended", call, *outcome]:
                self.requests[call].outcomes.append((time, " ".join(outcome)))
            case ["run", call]:
                self.runs.append(call)
            case ["in", session, epoch]:
                self.spans.append(Span(int(session), int(epoch), time))
            case ["out", _]:
                self.spans[-1].end = time
            case ["begin"]:
                pass
            case ["leave"]:
                self.left = time
            case ["quiet"]:
                self.quiet = True
            case ["exit", *status]:
                self.exit = " ".join(status)
            case _:
                raise ValueError(f"{self.who}: what is this line: {' '.join(line)}")

    def span_of(self, session: int | None) -> Span | None:
        """The session of that number."""
        return next((span for span in self.spans if span.session == session), None)


def read_books(folder: Path) -> list[Book]:
    """The books of all processes of a run, in the order of their names."""
    books = []
    for path in sorted(folder.iterdir()):
        # A process may have been killed before it could enter anything: then it ended when it made its ledger.
        book = Book(path.name, MEMBERS[path.name.rpartition(".")[0]], last=_written(path))
        for line in read_lines(path):
            book.enter(line)
        books.append(book)
    return books


def _written(path: Path) -> int:
    """When a file was written last, by the clock of the ledgers."""
    return now() - (time.time_ns() - path.stat().st_mtime_ns) // 1000


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One thing that the driver did: what, to whom, from when until when it was over, in microseconds."""

    what: str
    target: str
    begin: int
    end: int

    def overlaps(self, begin: int, end: int) -> bool:
        """Whether it was going on at some time between these."""
        return self.begin <= end and self.end >= begin
