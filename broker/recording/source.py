"""Several files as one stream of events in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path

from broker.recording.reader import Reader, Record


class Source:
    """The events of some files: parts of one recording follow each other, different recordings are merged by time.

    Args:
        paths: files in any order.

    Raises:
        RecordingError: one of them cannot be read, or is no recording.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.readers = [Reader(path) for path in dict.fromkeys(paths)]
        self.readers.sort(key=lambda reader: (reader.header.started_us, reader.header.id, reader.header.part))
        self.size = sum(reader.size for reader in self.readers)

    @property
    def position(self) -> int:
        """How many of the `size` bytes have been read."""
        return sum(reader.position for reader in self.readers)

    @property
    def problems(self) -> list[str]:
        """What could not be read, or is not there, a text each."""
        return [*(reader.damage for reader in self.readers if reader.damage), *self._gaps()]

    @property
    def notes(self) -> list[str]:
        """What the recorder remarked."""
        return [note for reader in self.readers for note in reader.notes]

    def __iter__(self) -> Iterator[Record]:
        recordings: dict[str, list[Reader]] = {}
        for reader in self.readers:
            recordings.setdefault(reader.header.id, []).append(reader)
        streams = [chain.from_iterable(parts) for parts in recordings.values()]
        return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=attrgetter("time_us"))

    def _gaps(self) -> Iterator[str]:
        for reader, after in zip(self.readers, self.readers[1:], strict=False):
            here, there = reader.header, after.header
            if here.id == there.id and there.part != here.part + 1:
                yield f"between {reader.path} (part {here.part}) and {after.path} (part {there.part}) parts are missing"
