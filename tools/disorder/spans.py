"""When sessions really ended, and what ended them: the driver knows better than a process that was killed or frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from tools.disorder.books import FOREVER, Book, Disturbance

# A broker that has been silent for three heartbeats is given up; noticing that, and registering again, takes a while.
NOTICE = 2_000_000
# What the last moment of a broker has brought may be entered so much later.
LATE = 100_000
# What a process has to say when it leaves is sent for so long at most.
LAST_WORDS = 2_000_000


def date_ends(books: Sequence[Book], disturbances: Sequence[Disturbance]) -> None:
    """Set the end of each session to when its process or the broker died, if that was before it was noticed.

    The session of a publisher that left in order, and whose last words the broker was there to hear, counts as one that
    lasted: nothing of it may be lost.

    Args:
        books: of all processes; changed in place.
        disturbances: what the driver did.
    """
    deaths = {each.target: each.begin for each in disturbances if each.what == "kill"}
    falls = sorted(each.begin for each in disturbances if each.target == "broker" and each.what in ("kill", "end"))
    for book in books:
        for span in book.spans:
            # What the broker has started ends with it, whatever it could still write.
            since = (book.first if book.member.managed else span.begin) - LATE
            fall = next((when for when in falls if when >= since), FOREVER)
            span.end = min(span.end, fall, deaths.get(book.who, FOREVER), _leaving(book, disturbances))


def _leaving(book: Book, disturbances: Sequence[Disturbance]) -> int:
    if book.exit is None:
        return FOREVER
    heard = book.exit == "0" and not any(
        each.target == "broker" and each.overlaps(min(book.left, book.last), book.last + LAST_WORDS)
        for each in disturbances
    )
    return FOREVER if heard and book.member.role == "publisher" else min(book.left, book.last)


def causeless(books: Sequence[Book], disturbances: Sequence[Disturbance], silence: int) -> Iterator[str]:
    """Sessions that ended though their process lived and the broker was well; before date_ends.

    Args:
        books: with the ends as the processes noticed them.
        disturbances: what the driver did.
        silence: microseconds for which the broker must be frozen before anybody may give it up.
    """
    causes = [
        each
        for each in disturbances
        if each.target == "broker" and (each.what != "freeze" or each.end - each.begin >= silence)
    ]
    for book in books:
        frozen = sum(each.end - each.begin for each in disturbances if each.target == book.who)
        for span in book.spans:
            since = span.end - silence - NOTICE - frozen
            if span.lasted or any(each.overlaps(since, span.end) for each in causes):
                continue
            yield f"{book.who} lost session {span.session} at {span.end / 1e6:.3f} s, though the broker was well"


def unexplained(books: Sequence[Book], disturbances: Sequence[Disturbance], living: Set[int]) -> Iterator[str]:
    """Processes that ended by themselves, or that somebody other than the driver has killed.

    What the broker has started ends with it. Others cannot register, or leave in order, while it does not answer; once
    they have registered they end only when they are told to.

    Args:
        books: of all processes.
        disturbances: what the driver did.
        living: processes that run at the end.
    """
    killed = {each.target for each in disturbances if each.what == "kill"}
    told = {each.target for each in disturbances if each.what == "restart"}
    falls = [each for each in disturbances if each.target == "broker"]
    for book in books:
        if book.who in killed or int(book.who.rpartition(".")[2]) in living:
            continue
        how = "was killed" if book.exit is None else f"ended with {book.exit}"
        if book.exit != "0" and not _caused(book, books, falls):
            yield f"{book.who} {how} after {book.last / 1e6:.3f} s, and the broker was well"
        elif not book.member.managed and book.spans and book.who not in told:
            yield f"{book.who} {how} after {book.last / 1e6:.3f} s, and nobody had told it to"


def _caused(book: Book, books: Sequence[Book], falls: Sequence[Disturbance]) -> bool:
    """Whether what was done to the broker explains the end of a process."""
    if book.exit is not None:
        return any(each.overlaps(book.last - NOTICE, book.last + NOTICE) for each in falls)
    # Its last line may be much older than its end. But had it ended before the broker, another one would have begun.
    others = (each.first for each in books if each.member is book.member)
    successor = min((first for first in others if first > book.last), default=FOREVER)
    return any(
        each.end >= book.last - NOTICE and each.begin <= successor for each in falls if each.what in ("kill", "end")
    )
