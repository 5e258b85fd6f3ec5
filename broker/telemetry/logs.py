"""The broker's own log: lines for people, or JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

# What a hostile peer can provoke is logged at most so often in such a span of seconds, per kind.
BURST = 5
SPAN_SECS = 10.0


# A text of a peer must neither look like an entry of ours nor move the cursor of a terminal.
_CONTROLS = {each: f"\\x{each:02x}" for each in (*range(32), *range(127, 160)) if each not in b"\t\n"}
_NEXT_LINE = "\n    "


class _Text(logging.Formatter):
    """An entry a line; further lines of it are indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_CONTROLS).replace("\n", _NEXT_LINE)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _utc(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _utc(record: logging.LogRecord) -> str:
    """RFC 3339 with milliseconds."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def set_up_logging(level: str, form: str, stream: TextIO = sys.stderr) -> None:
    """Log to `stream` from now on.

    Args:
        level: debug, info, warning or error.
        form: text or json.
        stream: where to.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Throttle:
    """Lets the first few of a kind through, then counts, so that a flood cannot fill the disk.

    Args:
        log: where to.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._kinds: dict[str, tuple[float, int]] = {}

    def warning(self, kind: str, now: float, text: str, *args: object) -> None:
        """Log a line of a kind, unless there were too many of late.

        Args:
            kind: what is counted together.
            now: seconds of a monotonic clock.
            text: as logging's.
            args: as logging's.
        """
        began, number = self._kinds.get(kind, (now, 0))
        if now - began > SPAN_SECS:
            if number > BURST:
                self._log.warning("%s: %d more within %.0f s", kind, number - BURST, now - began)
            began, number = now, 0
        if len(self._kinds) > 1000:
            self._kinds.clear()
        self._kinds[kind] = (began, number + 1)
        if number < BURST:
            self._log.warning(text, *args)
