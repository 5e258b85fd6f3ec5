"""Several patterns as one subscription: only that keeps the order between their events."""

from __future__ import annotations

from collections.abc import Sequence

from broker.recording.errors import RecordingError
from plugin_sdk.wire.subjects import check_pattern, is_reserved, matches

_CACHED_SUBJECTS = 10_000


def cover(patterns: Sequence[str]) -> str:
    """The narrowest pattern of the form `prefix.>` that covers them all, or the one there is.

    Raises:
        BadSubject: one of them is not a pattern.
        RecordingError: reserved subjects are mixed with others, which no pattern covers.
    """
    for pattern in patterns:
        check_pattern(pattern)
    if len(set(patterns)) == 1:
        return patterns[0]
    every = [pattern.split(".") for pattern in patterns]
    prefix: list[str] = []
    for tokens in list(zip(*every, strict=False))[: min(map(len, every)) - 1]:
        if len(set(tokens)) > 1:
            break
        prefix.append(tokens[0])
    if not prefix and any(map(is_reserved, patterns)):
        raise RecordingError(f"{' and '.join(patterns)} cannot be in one recording: record reserved subjects apart")
    return ".".join([*prefix, ">"])


class Choice:
    """Says whether a subject is covered by any of some patterns; remembers it, as subjects come again and again."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(map(check_pattern, patterns))
        self._known: dict[str, bool] = {}

    def __call__(self, subject: str) -> bool:
        verdict = self._known.get(subject)
        if verdict is None:
            if len(self._known) >= _CACHED_SUBJECTS:
                self._known.clear()
            verdict = self._known[subject] = any(matches(pattern, subject) for pattern in self.patterns)
        return verdict
