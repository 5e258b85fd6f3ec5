"""Reads the logs of plugins back: their last lines, and what is added. Reads files: not for the event loop's thread."""

import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from broker.supervisor.levels import DEFAULT, LEVELS, at_least, level_of

_CHUNK = 1 << 20
_STAMP_CHARS = len("2026-01-02T03:04:05.678Z")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: when it came in (UTC, RFC 3339), its level, and what was written."""

    at: str
    level: str
    text: str


class Tail:
    """The end of one plugin's log, through files that are put aside.

    Args:
        directory: where the logs are.
        least: only lines of this level or a graver one.
    """

    def __init__(self, directory: Path, plugin_id: str, least: str = LEVELS[0]) -> None:
        self._path = directory / f"{plugin_id}.log"
        self._least = least
        self._before = DEFAULT
        self._file: BinaryIO | None = None
        self._rest = b""

    def last(self, number: int) -> list[LogLine]:
        """The last lines, at most `number`, oldest first; from files that were put aside, too, if need be."""
        found: deque[LogLine] = deque(maxlen=number)
        self._file = _open(self._path)
        for path in self._aside(number):
            with suppress(FileNotFoundError), path.open("rb") as older:
                found.extend(self._read(older, None))
        if self._file:
            found.extend(self._read(self._file, number if self._least == LEVELS[0] else None))
        return list(found)

    def added(self) -> list[LogLine]:
        """What was written since; a line that was not complete then is among it again."""
        if self._file is None:
            self._file = _open(self._path)
        data = self._file.read(_CHUNK) if self._file else b""
        if not data and self._file and _replaced(self._file, self._path):
            # What was begun in the old file has been read to its end.
            self._file.close()
            self._file = _open(self._path)
            data = self._file.read(_CHUNK) if self._file else b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line for raw in lines if (line := self._line(raw))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def _read(self, file: BinaryIO, number: int | None) -> list[LogLine]:
        if number is not None:
            _skip(file, number)
        found = []
        for raw in file:
            self._rest = b"" if raw.endswith(b"\n") else raw
            if line := self._line(raw.rstrip(b"\n")):
                found.append(line)
        return found

    def _line(self, raw: bytes) -> LogLine | None:
        line = raw.decode("utf-8", "replace")
        at, _, text = line.partition(" ")
        if len(at) != _STAMP_CHARS:
            at, text = "", line
        self._before = level = level_of(text, self._before)
        return LogLine(at, level, text) if at_least(level, self._least) else None

    def _aside(self, number: int) -> list[Path]:
        """The files put aside, oldest first, when the present one may not have enough lines."""
        if self._file and self._least == LEVELS[0] and _has_lines(self._file, number):
            return []
        found = self._path.parent.glob(f"{self._path.name}.[0-9]*")
        return sorted(found, key=lambda path: int(path.suffix[1:]), reverse=True)


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _has_lines(file: BinaryIO, number: int) -> bool:
    count = 0
    while count < number and (data := file.read(_CHUNK)):
        count += data.count(b"\n")
    file.seek(0)
    return count >= number


def _skip(file: BinaryIO, number: int) -> None:
    """Moves near the last lines of a file, so that a large one need not be decoded as a whole."""
    end = file.seek(0, os.SEEK_END)
    breaks = 0
    while end > 0 and breaks <= number:
        begin = max(0, end - _CHUNK)
        file.seek(begin)
        breaks += file.read(end - begin).count(b"\n")
        end = begin
    file.seek(end)
    if end:
        file.readline()


def _replaced(file: BinaryIO, path: Path) -> bool:
    try:
        return os.fstat(file.fileno()).st_ino != path.stat().st_ino
    except FileNotFoundError:
        return False
