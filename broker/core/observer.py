"""Who publishes what and who calls whom, learnt only while somebody wants to know.

Subscriptions and services are on record anyway; who uses them is not, and to note it for each packet would be paid for
by everybody all the time. So the router puts this between itself and the events for as long as it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from broker.core.sessions import Session
from plugin_sdk.wire import packets as p

MAX_PAIRS = 10_000  # subjects may be made up without end, as in `user.12345.login`

Pair = tuple[str, str]
Burst = Callable[[Session, list[Any], int], int]
Call = Callable[[Session, p.Call, float], None]


@dataclass(frozen=True, slots=True)
class Observed:
    """What was learnt in `secs` seconds: pairs of a peer's name and a subject or service, with how often."""

    secs: float
    published: dict[Pair, int]
    called: dict[Pair, int]
    missed: int


class Observer:
    """Pairs of a peer's name with a subject it published to, or a service it called, and how often each was seen.

    `missed` counts what was seen of pairs beyond the bound.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.until = 0.0
        self.published: dict[Pair, int] = {}
        self.called: dict[Pair, int] = {}
        self.missed = 0

    @property
    def active(self) -> bool:
        """Whether it looks."""
        return self.since is not None

    def begin(self, now: float, until: float) -> None:
        """Look from `now` on, if it does not already, and at least to `until`."""
        if self.since is None:
            self.since = now
        self.until = max(self.until, until)

    def end(self) -> None:
        """Look no more, and forget."""
        self.since = None
        self.published.clear()
        self.called.clear()
        self.missed = 0

    def seen(self, now: float, sessions: Iterable[Session] = ()) -> Observed:
        """A frozen view of what was learnt so far.

        Of sessions whose plugins may not do everything, the verdicts remember anyway what was published and called;
        what is known only from there counts as 0.

        Args:
            now: seconds of the router's clock.
            sessions: all that are open.
        """
        secs = 0.0 if self.since is None else now - self.since
        published, called = dict(self.published), dict(self.called)
        for session in sessions:
            for verdicts, pairs in ((session.may_publish, published), (session.may_call, called)):
                for name in [name for name, allowed in (verdicts or {}).items() if allowed]:
                    if len(published) + len(called) < MAX_PAIRS:
                        pairs.setdefault((session.name, name), 0)
        return Observed(secs, published, called, self.missed)

    def noting_events(self, burst: Burst) -> Burst:
        """The same function, which notes beside who published what."""

        def noting(session: Session, packets: list[Any], begin: int) -> int:
            number = burst(session, packets, begin)
            self._note(self.published, session, packets[begin].subject, number)
            return number

        return noting

    def noting_calls(self, call: Call) -> Call:
        """The same function, which notes beside who called what."""

        def noting(session: Session, packet: p.Call, now: float) -> None:
            call(session, packet, now)
            self._note(self.called, session, packet.service, 1)

        return noting

    def _note(self, pairs: dict[Pair, int], session: Session, what: str, number: int) -> None:
        pair = (session.name, what)
        if pair in pairs:
            pairs[pair] += number
        elif len(self.published) + len(self.called) < MAX_PAIRS:
            pairs[pair] = number
        else:
            self.missed += number
