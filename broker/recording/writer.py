"""Writes the files of one recording, part after part; for one thread at a time, which may wait for the disk."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from broker.recording.errors import RecordingError
from broker.recording.layout import Header, end, whole

MIN_BYTES = 4096  # of a part or of a whole recording: less would hardly hold its own header
END_BYTES = 512  # set aside in each part for what is written last


class Writer:
    """The files of one recording.

    Args:
        path: the file; with `part_bytes` the parts are called after it, `NAME-0001.SUFFIX` and so on.
        header: of the first part.
        part_bytes: begin a new part before one becomes larger; None for a single file.
        max_bytes: take no more events once all parts together would become larger; None for no bound.

    Raises:
        RecordingError: the first file cannot be made, for example because it exists.
    """

    def __init__(self, path: Path, header: Header, part_bytes: int | None = None, max_bytes: int | None = None) -> None:
        self._path = path
        self._header = header
        self._part_bytes = part_bytes
        self._left = (max_bytes or sys.maxsize) - END_BYTES
        self._fd = -1
        self._size = 0
        self._part_events = 0
        self.files: list[Path] = []
        self.events = 0
        self.bytes = 0
        self.full = False
        self._open()

    def write(self, data: bytes, count: int) -> None:
        """Append `count` encoded events, in a new part where that is due; sets `full` when they do not all fit.

        Raises:
            RecordingError: the disk takes no more; every event before that is saved.
        """
        while count and not self.full:
            size, number = (len(data), count) if len(data) <= self._room() else self._what_fits(data)
            self._append(data[:size], number)
            data, count = data[size:], count - number

    def remark(self, data: bytes) -> None:
        """Append an encoded note; raises RecordingError."""
        self._append(data, 0)

    def close(self, why: str, facts: dict[str, Any]) -> None:
        """Write why the recording ends, with `facts`, and wait until the disk has everything; raises RecordingError."""
        if self._fd < 0:
            return
        try:
            self._append(end(why, self._part_events, facts), 0)
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error) from None
        finally:
            os.close(self._fd)
            self._fd = -1

    def _room(self) -> int:
        return min(self._left, (self._part_bytes or sys.maxsize) - END_BYTES - self._size)

    def _what_fits(self, data: bytes) -> tuple[int, int]:
        """Bytes and events of `data` to be written next, when not everything fits; may begin a new part for them."""
        size, number = whole(data, self._room())
        if number:
            return size, number
        first, _ = whole(data, len(data), 1)
        if first > self._left:
            self.full = True
            return 0, 0
        if self._part_events:
            self.close("continued in the next part", {})
            self._open()
        # One event that is larger than a part has a part for itself.
        return first, 1

    def _open(self) -> None:
        header = replace(self._header, part=len(self.files) + 1)
        path = self._path
        if self._part_bytes is not None:
            path = path.with_name(f"{path.stem}-{header.part:04}{path.suffix}")
        try:
            # For the owner only, as what passes on a bus may be confidential.
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise RecordingError(f"{path} exists: choose another name, or remove it first") from None
        except OSError as error:
            raise RecordingError(f"cannot make {path}: {error.strerror}") from None
        self.files.append(path)
        self._size = self._part_events = 0
        self._append(header.encode(), 0)

    def _append(self, data: bytes, number: int) -> None:
        """Write whole objects; when the disk takes only some of them, the file ends with the last that it took."""
        written, problem = _write(self._fd, data)
        if problem is not None:
            written, number = whole(data, written)
            with suppress(OSError):
                os.ftruncate(self._fd, self._size + written)
        self._size += written
        self._left -= written
        self.bytes += written
        self._part_events += number
        self.events += number
        if problem is not None:
            raise self._failed(problem)

    def _failed(self, error: OSError) -> RecordingError:
        return RecordingError(f"cannot write to {self.files[-1]}: {error.strerror or error}")


def _write(fd: int, data: bytes) -> tuple[int, OSError | None]:
    """Write as much as the disk takes; returns how many bytes that were, and what kept it from taking all."""
    view, done = memoryview(data), 0
    try:
        while done < len(data):
            done += os.write(fd, view[done:])
    except OSError as error:
        return done, error
    return done, None
