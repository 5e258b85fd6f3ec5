"""Do the ledgers of publishers and subscribers balance? What docs/guarantees.md promises for events, checked.

A *stretch* is what one session of a publisher and one session of a subscriber had in common.

 1. A subscriber gets the events of a publisher in their order, each once, and none that was not published.
 2. Under `block` no event is missing inside a stretch: neither between two that came, nor at its beginning, once the
    subscription was in force, nor at its end, if neither of the two sessions ended.
 3. What is missing at the end of a stretch that ended with one of its sessions weighs no more than what credit allows
    to be on its way.
 4. A queue group gets each event once, and misses only what was on its way to a member that was cut off: nothing with
    one that left in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from plugin_sdk.wire.limits import EVENT_OVERHEAD
from tools.disorder.books import Book, Publication, Receipt, Span
from tools.disorder.stage import WINDOW

# On its way are at most a window to the subscriber, a window of the publisher, which is an eighth, and the event that
# used up the last of its credit. Filler and overhead are what an event weighs at least.
ON_ITS_WAY = WINDOW + WINDOW // 8 + 4096
# So long a group still chooses a member that has died: until the broker has learned of it.
NOTICE = 2_000_000


def check_receipts(publishers: dict[str, Book], subscriber: Book) -> Iterator[str]:
    """Promise 1."""
    for who, receipts in subscriber.receipts.items():
        publisher = publishers.get(who)
        if publisher is None:
            yield f"{subscriber.who} got events of {who}, which nobody is"
            continue
        last = 0
        for receipt in receipts:
            if receipt.number == last:
                yield f"{subscriber.who} got event {last} of {who} twice"
            elif receipt.number < last:
                yield f"{subscriber.who} got event {receipt.number} of {who} after event {last}"
            known = publisher.published.get(receipt.number)
            if known is None or known.refused:
                yield f"{subscriber.who} got event {receipt.number} of {who}, which was not published"
            last = receipt.number


def check_stretches(publisher: Book, subscriber: Book) -> Iterator[str]:
    """Promises 2 and 3, for a subscriber under `block` that is in no group."""
    receipts = subscriber.receipts.get(publisher.who, [])
    for sender in publisher.spans:
        sent = [each for each in publisher.published.values() if each.session == sender.session]
        for taker in subscriber.spans:
            yield from _check_stretch(publisher, subscriber, sender, taker, sent, receipts)


def _check_stretch(
    publisher: Book,
    subscriber: Book,
    sender: Span,
    taker: Span,
    sent: Sequence[Publication],
    receipts: Sequence[Receipt],
) -> Iterator[str]:
    came = {each.number for each in receipts if each.epoch == taker.epoch}
    last = max((each.number for each in sent if each.number in came), default=0)
    first = min((each.number for each in sent if each.number in came), default=0)
    ended = min(sender.end, taker.end)
    missing = [each for each in sent if each.number not in came]
    due = [each for each in missing if each.begun >= taker.begin and each.done <= ended]
    inside = [each for each in missing if first < each.number < last] or [each for each in due if each.number < last]
    where = f"of {publisher.who} (session {sender.session}) at {subscriber.who} (session {taker.session})"
    if inside:
        yield f"{len(inside)} events {where} are missing between others, the first is {inside[0].number}"
    tail = [each for each in due if each.number > last]
    if tail and sender.lasted and taker.lasted:
        yield f"{len(tail)} events {where} are missing though both sessions lasted, the first is {tail[0].number}"
    if weigh(tail) > ON_ITS_WAY:
        weight = f"{weigh(tail)} bytes, {ON_ITS_WAY} may be on their way"
        yield f"{len(tail)} events {where} are missing at its end: {weight}"


def check_group(publisher: Book, members: Sequence[Book]) -> Iterator[str]:
    """Promise 4."""
    got = Counter(each.number for member in members for each in member.receipts.get(publisher.who, []))
    for number, times in got.items():
        if times > 1:
            yield f"the group got event {number} of {publisher.who} {times} times"
    losses = [_Loss(span) for member in members for span in member.spans if not span.lasted and span.end != member.left]
    for sender in publisher.spans:
        sent = [each for each in publisher.published.values() if each.session == sender.session]
        last = max((each.number for each in sent if each.number in got), default=0)
        own = [_Loss(sender)] if not sender.lasted else []
        for event in sent:
            if event.number in got or not _covered(event, members):
                continue
            if not any(loss.takes(event) for loss in (losses + own if event.number > last else losses)):
                yield f"event {event.number} of {publisher.who} reached no member of the group, and nothing explains it"


class _Loss:
    """The end of a session, and what was lost with it."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._weight = 0

    def takes(self, event: Publication) -> bool:
        """Whether this explains the loss of an event, besides those that it explains already."""
        if not (self._span.begin <= event.done and event.begun <= self._span.end + NOTICE):
            return False
        self._weight += weigh([event])
        return self._weight <= ON_ITS_WAY


def _covered(event: Publication, members: Sequence[Book]) -> bool:
    """Whether some member was in force when it was published, and for long enough to have been the one."""
    return any(span.begin <= event.begun and event.done <= span.end for member in members for span in member.spans)


def weigh(events: Sequence[Publication]) -> int:
    """The least that these events cost in credit."""
    return sum(each.weight + EVENT_OVERHEAD for each in events)
