"""Do the ledgers of callers and servers balance? What docs/guarantees.md promises for requests, checked.

1. A request has exactly one outcome, at the latest when its time is over and a silent broker has been waited for.
2. A handler runs once for it at most; once, when the outcome is its answer; never, when it was refused.
3. A reply is that of its own handler, and a stream is complete and in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tools.disorder.books import Book, Disturbance, Request

# Beyond its own time a caller waits a second for a broker that is silent; the rest is for a busy machine.
GRACE = 4_000_000
_ANSWERED = ("reply", "answered")
# The broker, or the SDK for it, did not let these begin.
_REFUSED = ("unavailable", "busy", "denied", "bad_packet", "bad_subject", "limit", "unknown_session")
_OTHERS = ("timeout", "cancelled", "lost", "shutting_down", "abandoned")


def check_requests(
    callers: Sequence[Book], servers: Sequence[Book], disturbances: Sequence[Disturbance]
) -> Iterator[str]:
    """All of it."""
    runs = Counter(call for server in servers for call in server.runs)
    known = {call for caller in callers for call in caller.requests}
    for caller in callers:
        for call, request in caller.requests.items():
            yield from _check(caller, call, request, runs[call], disturbances)
    for call in runs.keys() - known:
        yield f"a handler ran for request {call}, which nobody made"


def _check(caller: Book, call: str, request: Request, runs: int, disturbances: Sequence[Disturbance]) -> Iterator[str]:
    if runs > 1:
        yield f"request {call} ran {runs} times"
    if len(request.outcomes) != 1:
        died = any(each.what == "kill" and each.target == caller.who for each in disturbances)
        if request.outcomes or not (died or _perished(caller, disturbances)):
            yield f"request {call} had {len(request.outcomes)} outcomes: {request.outcomes}"
        return
    ((ended, outcome),) = request.outcomes
    if outcome not in (*_ANSWERED, *_REFUSED, *_OTHERS):
        yield f"request {call} ended with {outcome!r}"
    if outcome in _ANSWERED and runs != 1:
        yield f"request {call} was answered, and ran {runs} times"
    if outcome in _REFUSED and runs:
        yield f"request {call} was refused with {outcome!r}, and ran"
    frozen = sum(each.end - each.begin for each in disturbances if each.overlaps(request.begun, ended))
    if ended - request.begun > request.timeout * 1000 + GRACE + frozen:
        took = (ended - request.begun) / 1e6
        yield f"request {call} ended after {took:.1f} s, with a timeout of {request.timeout} ms"


def _perished(caller: Book, disturbances: Sequence[Disturbance]) -> bool:
    """Whether it died with the broker that had started it."""
    return caller.member.managed and any(
        each.what == "kill" and each.target == "broker" and each.begin >= caller.last - 1_000_000
        for each in disturbances
    )


def outcomes(callers: Sequence[Book]) -> Counter[str]:
    """How often each outcome came."""
    return Counter(outcome for caller in callers for each in caller.requests.values() for _, outcome in each.outcomes)
