"""What a peer that is refused again and again leaves in the audit log (SEC-5)."""

from collections.abc import Callable

import pytest

from broker.core.notices import PeerMisbehaved, RegistrationRefused
from broker.daemon.denials import MAX_KINDS, WINDOW_SECS, Denials


class Book:
    """The audit log, and a clock that goes on when the test says so."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, ...]] = []
        self.now = 1000.0
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.denials = Denials(self._record, lambda: self.now, self._later)

    def pass_time(self, secs: float) -> None:
        self.now += secs
        due = [work for when, work in self._timers if when <= self.now]
        self._timers = [each for each in self._timers if each[0] > self.now]
        for work in due:
            work()

    def pending_timers(self) -> int:
        return len(self._timers)

    def _record(self, actor: str, action: str, target: str, result: str, detail: str) -> None:
        self.entries.append((actor, action, target, result, detail))

    def _later(self, secs: float, work: Callable[[], None]) -> None:
        self._timers.append((self.now + secs, work))


@pytest.fixture
def book() -> Book:
    return Book()


def deny(book: Book, name: str, subject: str) -> None:
    book.denials.misbehaved(PeerMisbehaved(name, 7, "denied", f"publishing to {subject!r}"))


def refuse(book: Book, name: str, code: str = "bad_token") -> None:
    book.denials.refused(RegistrationRefused(name, code, "the key is unknown", 7, "ipc", ""))


def test_the_first_denied_action_is_audited_at_once(book: Book) -> None:
    deny(book, "evil", "$broker.x")
    assert book.entries == [("evil", "denied", "bus", "denied", "publishing to '$broker.x'")]


def test_a_flood_of_one_kind_becomes_two_entries_the_second_with_the_number(book: Book) -> None:
    for _ in range(10_000):
        deny(book, "evil", "$broker.x")
    assert len(book.entries) == 1
    book.pass_time(WINDOW_SECS)
    assert len(book.entries) == 2
    assert book.entries[1][:4] == ("evil", "denied", "bus", "denied")
    assert "9999 more within 60 s" in book.entries[1][4]


def test_other_peers_actions_and_codes_are_not_counted_together(book: Book) -> None:
    deny(book, "evil", "$broker.x")
    deny(book, "evil", "$broker.y")
    deny(book, "other", "$broker.x")
    refuse(book, "evil")
    refuse(book, "evil", "duplicate")
    assert len(book.entries) == 5


def test_after_its_window_a_kind_is_audited_at_once_again(book: Book) -> None:
    refuse(book, "evil")
    book.pass_time(WINDOW_SECS)
    refuse(book, "evil")
    assert [entry[3] for entry in book.entries] == ["refused", "refused"]


def test_ever_new_names_leave_a_bounded_number_of_entries_and_lose_no_count(book: Book) -> None:
    for number in range(5_000):
        refuse(book, f"name-{number}")
    book.pass_time(WINDOW_SECS)
    assert len(book.entries) == MAX_KINDS + 2
    assert f"{5_000 - MAX_KINDS - 1} more" in book.entries[-1][4]


def test_what_was_counted_is_recorded_when_the_broker_stops(book: Book) -> None:
    for _ in range(3):
        deny(book, "evil", "$broker.x")
    book.denials.flush()
    assert "2 more" in book.entries[-1][4]


def test_a_claimed_name_of_megabytes_is_not_kept(book: Book) -> None:
    refuse(book, "x" * 8_000_000)
    assert len("".join(book.entries[0])) < 2_000


def test_nothing_is_planned_when_nothing_is_counted(book: Book) -> None:
    deny(book, "evil", "$broker.x")
    book.pass_time(WINDOW_SECS)
    assert book.pending_timers() == 0


def test_what_only_breaks_the_protocol_is_logged_and_not_audited(book: Book, caplog: pytest.LogCaptureFixture) -> None:
    book.denials.misbehaved(PeerMisbehaved("", 7, "bad_packet", "garbage"))
    assert not book.entries
    assert "an unregistered peer: garbage" in caplog.text
