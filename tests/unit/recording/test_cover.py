"""Several patterns in one subscription."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.recording import RecordingError
from broker.recording.cover import Choice, cover
from plugin_sdk.wire.subjects import BadSubject, check_pattern, matches

TOKENS = st.sampled_from(["a", "b", "c"])
SUBJECTS = st.lists(TOKENS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(
    lambda tokens, last: ".".join([*tokens, *last]),
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3),
    st.sampled_from([(), (">",)]),
)


@given(patterns=st.lists(PATTERNS, min_size=1, max_size=4), subject=SUBJECTS)
def test_what_a_pattern_matches_its_cover_matches(patterns: list[str], subject: str) -> None:
    covering = check_pattern(cover(patterns))
    wanted = any(matches(pattern, subject) for pattern in patterns)
    assert Choice(patterns)(subject) == wanted
    assert matches(covering, subject) or not wanted


@pytest.mark.parametrize(
    ("patterns", "covering"),
    [
        (["user.login"], "user.login"),
        (["user.login", "user.logout"], "user.>"),
        (["user.login", "user.login.failed"], "user.>"),
        (["user", "user.login"], ">"),
        (["a.b.c", "a.b.d"], "a.b.>"),
        (["a.*", "b.*"], ">"),
        (["$broker.a", "$broker.b"], "$broker.>"),
    ],
)
def test_the_cover_is_as_narrow_as_a_prefix_can_be(patterns: list[str], covering: str) -> None:
    assert cover(patterns) == covering


def test_reserved_subjects_and_others_have_no_cover() -> None:
    with pytest.raises(RecordingError, match="record reserved subjects apart"):
        cover(["$broker.a", "user.>"])


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(BadSubject):
        cover(["user..x"])
