"""The grammar of subjects, patterns and names, and which pattern covers which subject."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from plugin_sdk.wire.limits import MAX_NAME_BYTES, MAX_SUBJECT_BYTES, MAX_SUBJECT_TOKENS
from plugin_sdk.wire.subjects import (
    BadSubject,
    check_name,
    check_pattern,
    check_subject,
    is_reserved,
    matches,
)
from plugin_sdk.wire.subjects import covers as covers_pattern

quick = settings(max_examples=300, deadline=None)
TOKEN_CHARACTERS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in ".*>")
tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=6)
few_tokens = st.sampled_from(["a", "b", "$c"])
subjects = st.lists(tokens, min_size=1, max_size=MAX_SUBJECT_TOKENS).map(".".join)
nearly = st.lists(st.one_of(tokens, st.sampled_from(["", "*", ">", "a*", " ", "ü", "\n"])), max_size=20).map(".".join)
short_subjects = st.lists(few_tokens, min_size=1, max_size=4).map(".".join)
short_patterns = st.lists(st.one_of(few_tokens, st.just("*")), min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from([".".join(parts), ".".join([*parts, ">"]), ".".join([*parts[:-1], ">"])])
)


def admitted(check: Callable[[str], str], text: str) -> bool:
    """Whether a check lets a text pass, unchanged; a refusal must name its reason."""
    try:
        return check(text) == text
    except BadSubject as error:
        return not error.text.strip()


def is_subject(text: str) -> bool:
    """The grammar as docs/PROTOCOL.md words it, character by character."""
    parts = text.split(".")
    return (
        len(text.encode()) <= MAX_SUBJECT_BYTES
        and len(parts) <= MAX_SUBJECT_TOKENS
        and all(part and all(character in TOKEN_CHARACTERS for character in part) for part in parts)
    )


def is_pattern(text: str) -> bool:
    """The same for patterns: wildcards count as tokens."""
    parts = text.split(".")
    if len(text) > MAX_SUBJECT_BYTES or len(parts) > MAX_SUBJECT_TOKENS:
        return False
    if parts[-1] == ">":
        parts.pop()
    return all(part == "*" or (is_subject(part) and "." not in part) for part in parts)


def covers(pattern: str, subject: str) -> bool:
    """The meaning of a pattern, by a regular expression: another way than that of the code."""
    if subject.startswith("$") and pattern[0] in "*>":
        return False
    expression = "".join(
        {"*": "[^.]+", ">": ".+"}.get(token, re.escape(token) if token != "." else re.escape("."))
        for token in re.split(r"(\.)", pattern)
    )
    return re.fullmatch(expression, subject) is not None


@quick
@given(st.one_of(st.text(max_size=300), nearly, subjects))
@example("x" * 300)
@example("\ud800")
@example("a\n")
def test_any_text_is_admitted_or_refused_as_the_protocol_says(text: str) -> None:
    assert admitted(check_subject, text) == (text.isascii() and is_subject(text))
    assert admitted(check_pattern, text) == (text.isascii() and is_pattern(text))
    assert admitted(check_name, text) == bool(
        len(text) <= MAX_NAME_BYTES and re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", text)
    )


@quick
@given(subjects)
def test_every_subject_is_a_pattern_that_covers_itself(subject: str) -> None:
    assume(len(subject) <= MAX_SUBJECT_BYTES)
    assert matches(check_pattern(check_subject(subject)), subject)


@settings(max_examples=1000, deadline=None)
@given(short_patterns, short_subjects)
def test_a_pattern_covers_what_its_expression_matches(pattern: str, subject: str) -> None:
    assert matches(check_pattern(pattern), check_subject(subject)) == covers(pattern, subject)


@settings(max_examples=1000, deadline=None)
@given(short_patterns, short_patterns, short_subjects)
def test_what_a_narrow_pattern_covers_is_covered_by_every_pattern_that_covers_it(a: str, b: str, subject: str) -> None:
    if covers_pattern(a, b) and matches(b, subject):
        assert matches(a, subject)


@settings(max_examples=1000, deadline=None)
@given(short_patterns, short_patterns)
def test_a_pattern_is_covered_exactly_when_all_of_its_subjects_are(a: str, b: str) -> None:
    # A token that stands in neither of them is the hardest subject for a wildcard; so is one more token than both have.
    length = max(a.count("."), b.count(".")) + 2
    sizes = range(1, length + 1)
    every = (".".join(parts) for size in sizes for parts in product(("a", "b", "$c", "other"), repeat=size))
    assert covers_pattern(a, b) == all(matches(a, subject) for subject in every if matches(b, subject))


@quick
@given(short_patterns, short_subjects)
def test_no_wildcard_reaches_what_is_reserved(pattern: str, subject: str) -> None:
    if is_reserved(subject) and not is_reserved(pattern):
        assert not matches(pattern, subject)


@pytest.mark.parametrize(
    ("check", "text", "reason"),
    [
        (check_subject, "", "a token is empty"),
        (check_subject, "a..b", "a token is empty"),
        (check_subject, "a.*", "wildcard '*' is for subscriptions only"),
        (check_subject, "a.>", "wildcard '>' is for subscriptions only"),
        (check_subject, "a.b*", "a wildcard must be a whole token, not part of 'b*'"),
        (check_subject, "a b", "token 'a b' holds a character that is not printable ASCII, or a space"),
        (check_subject, "ü", "token 'ü' holds a character that is not printable ASCII, or a space"),
        (check_pattern, "a.>.b", "'>' stands only for the last tokens"),
        (check_pattern, "a>", "a wildcard must be a whole token, not part of 'a>'"),
        (check_subject, "x" * 257, "has 257 characters, the limit is 256"),
        (check_subject, ".".join("abcdefghijklmnopq"), "has more than 16 tokens"),
        (check_name, "1st", "a letter, then letters, digits, '_' or '-', at most 64"),
    ],
)
def test_a_refusal_names_the_text_and_the_reason(check: Callable[[str], str], text: str, reason: str) -> None:
    with pytest.raises(BadSubject) as refusal:
        check(text)
    assert reason in refusal.value.text
    assert repr(text)[:40].rstrip("'") in refusal.value.text


def test_a_refusal_of_a_huge_text_stays_short() -> None:
    for check in (check_subject, check_pattern, check_name):
        with pytest.raises(BadSubject) as refusal:
            check("x" * 1_000_000)
        assert len(refusal.value.text) < 300
