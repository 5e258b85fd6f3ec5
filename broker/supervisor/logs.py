"""What plugins write, kept in files that cannot grow without bound, by one thread for all of them."""

import logging
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Bounds of one plugin's log.

    Args:
        file_bytes: size at which a file is put aside and a new one begun.
        backups: how many files that were put aside are kept.
        bytes_per_sec: what may be written all the time.
        burst_bytes: what may be written at once.
        pending_bytes: what may wait for the disk.
    """

    file_bytes: int = 8 << 20
    backups: int = 2
    bytes_per_sec: float = 1 << 20
    burst_bytes: int = 4 << 20
    pending_bytes: int = 1 << 20


class PluginLog:
    """The log of one plugin, one and the same across its restarts. Belongs to the event loop's thread.

    What exceeds its limits is dropped and counted, never waited for.
    """

    def __init__(self, file: "LogFile", limits: LogLimits, writer: "LogWriter") -> None:
        self.written = 0
        self.dropped = 0
        self.dropped_lines = 0
        self._file = file
        self._limits = limits
        self._writer = writer
        self._allowance = float(limits.burst_bytes)
        self._last = 0.0
        self._dropped_told = 0
        self._line_open = False

    def write(self, data: bytes, now: float) -> bool:
        """Takes what a plugin wrote; does not block.

        Args:
            now: monotonic seconds.

        Returns:
            False when it was dropped.
        """
        earned = (now - self._last) * self._limits.bytes_per_sec
        self._allowance = min(self._limits.burst_bytes, self._allowance + earned)
        self._last = now
        if self._allowance < len(data) or not self._writer.accept(self._file, self._notice() + data):
            self.dropped += len(data)
            self.dropped_lines += data.count(b"\n")
            return False
        self._allowance -= len(data)
        self.written += len(data)
        self._dropped_told = self.dropped
        self._line_open = not data.endswith(b"\n")
        return True

    def end_line(self) -> None:
        """Completes a last line that its plugin left unfinished, and tells what was dropped since."""
        last = self._notice() or (b"\n" if self._line_open else b"")
        if last:
            self._writer.accept(self._file, last)
        self._line_open = False
        self._dropped_told = self.dropped

    def _notice(self) -> bytes:
        missing = self.dropped - self._dropped_told
        lead = b"\n" if self._line_open else b""
        return lead + b"[%d bytes dropped: written faster than they are kept]\n" % missing if missing else b""


class LogWriter:
    """The thread that writes, started with the first write."""

    def __init__(self, directory: Path, limits: LogLimits | None = None) -> None:
        self._directory = directory
        self._limits = limits or LogLimits()
        self._logs: dict[str, PluginLog] = {}
        self._files: list[LogFile] = []
        self._waiting: deque[tuple[LogFile, bytes]] = deque()
        self._work = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def log_of(self, plugin_id: str) -> PluginLog:
        """The log of a plugin."""
        if plugin_id not in self._logs:
            file = LogFile(self._directory / f"{plugin_id}.log", self._limits)
            self._files.append(file)
            self._logs[plugin_id] = PluginLog(file, self._limits, self)
        return self._logs[plugin_id]

    def accept(self, file: "LogFile", data: bytes) -> bool:
        """Queues data for a file; False when too much waits for it already, or when the writer is closed."""
        with self._work:
            if self._closing or file.pending + len(data) > self._limits.pending_bytes:
                return False
            file.pending += len(data)
            self._waiting.append((file, data))
            self._work.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="plugin-logs", daemon=True)
            self._thread.start()
        return True

    def close(self, timeout: float) -> bool:
        """Writes out what waits; blocks up to `timeout` seconds and returns whether that was enough."""
        with self._work:
            self._closing = True
            self._work.notify()
        if self._thread:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def _write_all(self) -> None:
        while batch := self._take():
            for file, data in batch:
                file.append(data)
            with self._work:
                for file, data in batch:
                    file.pending -= len(data)
        for file in self._files:
            file.close()

    def _take(self) -> list[tuple["LogFile", bytes]]:
        with self._work:
            self._work.wait_for(lambda: self._waiting or self._closing)
            batch = list(self._waiting)
            self._waiting.clear()
        return batch


class LogFile:
    """A file of lines with the time before each, put aside when it is full. Belongs to the writer's thread.

    `pending`, the bytes that wait for it, is the writer's and guarded by its lock.
    """

    def __init__(self, path: Path, limits: LogLimits) -> None:
        self.pending = 0
        self._path = path
        self._limits = limits
        self._stream: BinaryIO | None = None
        self._size = 0
        self._line_open = False
        self._complained = False

    def append(self, data: bytes) -> None:
        """Writes lines; a disk that does not take them is complained of once, until it does again."""
        try:
            self._write(self._stamped(data))
            self._complained = False
        except OSError as error:
            if not self._complained:
                logger.error("log %s cannot be written and loses lines: %s", self._path, error.strerror)
            self._complained = True

    def close(self) -> None:
        """Closes the file until the next write."""
        if self._stream:
            self._stream.close()
            self._stream = None

    def _stamped(self, data: bytes) -> bytes:
        stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3].encode() + b"Z "
        lead = b"" if self._line_open else stamp
        self._line_open = not data.endswith(b"\n")
        body = data if self._line_open else data[:-1]
        return lead + body.replace(b"\n", b"\n" + stamp) + (b"" if self._line_open else b"\n")

    def _write(self, data: bytes) -> None:
        stream = self._stream or self._open()
        if self._size and self._size + len(data) > self._limits.file_bytes:
            self.close()
            self._put_aside()
            stream = self._open()
        stream.write(data)
        self._size += len(data)

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._path.open("ab", buffering=0)
        self._size = self._stream.tell()
        return self._stream

    def _put_aside(self) -> None:
        for number in range(self._limits.backups - 1, 0, -1):
            if self._backup(number).exists():
                self._backup(number).replace(self._backup(number + 1))
        if self._limits.backups:
            self._path.replace(self._backup(1))
        else:
            self._path.unlink()

    def _backup(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
