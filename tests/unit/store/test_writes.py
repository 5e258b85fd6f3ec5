"""Whatever text comes, the columns can hold it, and it can be read."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.store.records import RegisterStatus
from broker.store.writes import audited, described, exited, fit, status

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
# Lone surrogates included: text() leaves them out by default.
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT, st.integers(64, 300))
def test_a_text_fits_and_is_valid_unicode(text: str, limit: int) -> None:
    data = fit(text, limit).encode()
    assert len(data) <= limit


@given(st.text(), st.integers(64, 300))
def test_a_text_that_fits_already_is_not_touched(text: str, limit: int) -> None:
    if len(text.encode()) <= limit:
        assert fit(text, limit) == text


def test_a_long_text_keeps_both_ends_and_says_how_long_it_was() -> None:
    assert fit("a" * 500 + "z" * 500, 64) == f"{'a' * 21} … [1000 bytes] … {'z' * 21}"


def test_success_clears_the_error_and_nothing_else_does() -> None:
    for number in RegisterStatus:
        kept = status("here", "hello", NOON, number, "why").values["register_error"]
        assert kept == (None if number is RegisterStatus.REGISTERED else "why")


def test_times_are_stored_in_utc() -> None:
    berlin = NOON.astimezone(timezone(timedelta(hours=1)))
    assert berlin.hour == 13
    entry = audited("here", berlin, "ada", "stop", "hello", "ok", "")
    assert entry.values["happened_at"] == NOON.replace(tzinfo=None)


def test_every_write_names_itself_for_the_log() -> None:
    facts: dict[str, Any] = {"name": "", "version": "", "description": "", "enabled": True, "desired_state": ""}
    assert str(described("here", "hello", NOON, **facts)) == "described of 'hello'"
    assert str(status("here", "hello", NOON, RegisterStatus.FAILED, "")) == "status of 'hello'"
    assert str(exited("here", "hello", NOON, "exit status 1", 1)) == "exit of 'hello'"
    assert str(audited("here", NOON, "ada", "stop", "hello", "ok", "")) == "stop of 'hello'"
