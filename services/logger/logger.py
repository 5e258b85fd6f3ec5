"""The central log sink: the lines of all plugins, in one file of bounded size and on stderr."""

import logging
import re
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, NamedTuple

from plugin_sdk import BusError, CallError, Event, Plugin

LEVELS = ("debug", "info", "warning", "error", "critical")
LONGEST_TAIL = 1000  # lines; with the longest line a reply stays below the size of a frame
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Settings:
    """The `config` of plugin.yaml, where each is explained; raises ValueError for a value that makes no sense."""

    level: str = "debug"
    max_bytes: int = 5_000_000
    backups: int = 3
    max_line: int = 2_000
    stderr: bool = True

    def __post_init__(self) -> None:
        if type(self.stderr) is not bool:
            raise ValueError(f"stderr is {self.stderr!r}; expects true or false")
        if self.level not in LEVELS:
            raise ValueError(f"level is {self.level!r}; expects one of {', '.join(LEVELS)}")
        for name, low, high in (("max_bytes", 4096, 1 << 40), ("backups", 1, 1000), ("max_line", 100, 4000)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; expects a whole number from {low} to {high}")


class Sink(RotatingFileHandler):
    """A file of bounded size that raises when it cannot be written, so that the sender of a line learns of it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """Called while the error is handled; logging would only print it."""
        raise


class Line(NamedTuple):
    """One line before it gets its time."""

    level: str
    text: str


class Logger(Plugin):
    """Writes what comes by `logger.write` and `log.>`, and what plugins print."""

    async def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        self._settings = Settings(**config)
        self._lost = 0
        self._trouble = ""

    async def start(self) -> None:
        """Open the file."""
        self._path = self.data_dir / "mesh.log"
        size, kept = self._settings.max_bytes, self._settings.backups
        self._sink = Sink(self._path, maxBytes=size, backupCount=kept, encoding="utf-8", errors="backslashreplace")
        try:
            # A batch costs one thread switch; a flood costs its oldest lines, not the mesh.
            await self.bus.subscribe("$log.>", self.collect, batch=200, overflow="drop_oldest")
        except CallError as error:
            if error.code != "denied":
                raise
            self.log.info("what plugins print is not collected: %s", error.text)

    async def cleanup(self) -> None:
        """Close the file."""
        if hasattr(self, "_sink"):
            self._sink.close()

    async def health(self) -> dict[str, Any]:
        """Not well while the file cannot be written."""
        return {"ok": not self._trouble, "reason": self._trouble, "lost": self._lost}

    @Plugin.service("write")
    def write(self, message: str, level: str = "info", logger: str = "", fields: dict[str, Any] | None = None) -> None:
        """Write one line; the reply says that it is in the file."""
        self._write([self._line(message, level, logger, fields)])

    @Plugin.service("tail")
    def tail(self, n: int = 20) -> list[str]:
        """Return the last `n` lines, oldest first."""
        if type(n) is not int or not 1 <= n <= LONGEST_TAIL:
            raise CallError("bad_request", f"n is {n!r:.80}; expects a whole number from 1 to {LONGEST_TAIL}")
        lines: deque[str] = deque(maxlen=n)
        self._sink.acquire()  # no line may move into the other file between the two
        try:
            for path in (Path(f"{self._path}.1"), self._path):
                with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
                    lines.extend(line.rstrip("\n") for line in file)
        finally:
            self._sink.release()
        return list(lines)

    @Plugin.subscribe("log.>", batch=200, overflow="drop_oldest")
    def collect(self, events: list[Event]) -> None:
        """Write what plugins publish. A batch costs one thread switch; a flood costs its oldest lines, not the mesh."""
        self._write([self._line_of(event) for event in events])

    def _line_of(self, event: Event) -> Line:
        source = event.subject.removeprefix("$").removeprefix("log.")
        try:
            data = event.data if isinstance(event.data, dict) else {"message": event.data}
            line = self._line(**{"logger": source, **data})
            trace = event.trace_ids
            return line if trace is None else Line(line.level, f"{line.text} trace_id={trace[0]} span_id={trace[1]}")
        except (BusError, TypeError) as error:
            # A broken log line is still a trace of something: it is kept with the reason.
            return self._line(f"malformed log event: {error}: {event.body[:200]!r}", "warning", source)

    def _line(self, message: str, level: str = "info", logger: str = "", fields: dict[str, Any] | None = None) -> Line:
        fields = {} if fields is None else fields
        for name, value, kind in (("message", message, str), ("logger", logger, str), ("fields", fields, dict)):
            if not isinstance(value, kind):
                expected = "a map" if kind is dict else "a text"
                raise CallError("bad_request", f"{name} is {value!r:.80}; expects {expected}")
        if level not in LEVELS:
            raise CallError("bad_request", f"level is {level!r:.80}; expects one of {', '.join(LEVELS)}")
        extra = "".join(f" {key}={value!r}" for key, value in fields.items())
        return Line(level, _CONTROL.sub(_escape, f"{level.upper()} {logger or '-'}: {message}{extra}"))

    def _write(self, lines: list[Line]) -> None:
        least = LEVELS.index(self._settings.level)
        texts = [_clip(line.text, self._settings.max_line) for line in lines if LEVELS.index(line.level) >= least]
        if not texts:
            return
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for written, text in enumerate(texts):
            try:
                self._sink.emit(logging.makeLogRecord({"msg": f"{time} {text}"}))
            except OSError as error:
                self._lost += len(texts) - written
                self._trouble = f"{self._path} cannot be written: {error.strerror}"
                raise CallError("failed", self._trouble) from error
        self._trouble = ""
        if self._settings.stderr:
            with suppress(OSError):  # nobody reads it: the file has the lines
                sys.stderr.write("".join(f"{text}\n" for text in texts))
                sys.stderr.flush()


def _escape(match: re.Match[str]) -> str:
    """A line break or terminal command in a message must not look like a line of somebody else."""
    return match[0].encode("unicode_escape").decode()


def _clip(text: str, limit: int) -> str:
    data = text.encode("utf-8", "backslashreplace")
    return text if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"


if __name__ == "__main__":
    Logger("logger", version="1.0.0", description="Central log sink").run()
