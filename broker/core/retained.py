"""The last event of each subject that was published with the retain flag."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from plugin_sdk.wire.subjects import matches


class Retained:
    """Last values, bounded in subjects and bytes; the one set longest ago makes room, and is counted."""

    def __init__(self, max_subjects: int, max_bytes: int) -> None:
        self._max_subjects = max_subjects
        self._max_bytes = max_bytes
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._values)

    def keep(self, subject: str, payload: bytes) -> None:
        """Remember `payload` as the last value of `subject`; one that is larger than all the room is not kept."""
        self._bytes -= len(self._values.pop(subject, b""))
        if len(payload) > self._max_bytes:
            self.evicted += 1
            return
        self._values[subject] = payload
        self._bytes += len(payload)
        while len(self._values) > self._max_subjects or self._bytes > self._max_bytes:
            _, oldest = self._values.popitem(last=False)
            self._bytes -= len(oldest)
            self.evicted += 1

    def matching(self, pattern: str) -> Iterator[tuple[str, bytes]]:
        """Subject and payload of every last value that `pattern` covers."""
        if pattern in self._values:
            yield pattern, self._values[pattern]
            return
        yield from ((subject, payload) for subject, payload in self._values.items() if matches(pattern, subject))
