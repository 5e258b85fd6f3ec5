"""Prints the events of the mesh, one a line, for as long as somebody reads them."""

import json
import os
import re
import select
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from plugin_sdk import BusError, Event, Plugin

STDOUT = 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Settings:
    """The `config` of plugin.yaml, where each is explained; raises ValueError for a value that makes no sense."""

    patterns: list[str] = field(default_factory=lambda: [">"])
    format: str = "pretty"
    max_line: int = 1000
    patience_secs: float = 2.0

    def __post_init__(self) -> None:
        patterns: Any = self.patterns
        if not isinstance(patterns, list) or not all(isinstance(each, str) for each in patterns):
            raise ValueError(f"patterns is {self.patterns!r}; expects a list such as ['user.*', 'order.>']")
        if self.format not in ("pretty", "json"):
            raise ValueError(f"format is {self.format!r}; expects pretty or json")
        # Up to 4096 bytes are written to a pipe whole or not at all, and the shortest must hold any subject.
        if type(self.max_line) is not int or not 700 <= self.max_line <= 4000:
            raise ValueError(f"max_line is {self.max_line!r}; expects a whole number from 700 to 4000")
        if type(self.patience_secs) not in (int, float) or not 0 <= self.patience_secs <= 60:
            raise ValueError(f"patience_secs is {self.patience_secs!r}; expects a number from 0 to 60")


class Paper:
    """A file descriptor whose reader may be slow: it is waited for once, and until it reads again not any more.

    Args:
        descriptor: where to write.
        patience: seconds to wait for the reader.
    """

    def __init__(self, descriptor: int, patience: float) -> None:
        self._descriptor = descriptor
        self._patience = patience
        self._stalled = False
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)

    def write(self, line: str) -> bool:
        """Write a line; False when nobody reads."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        while data:
            if not self._ready.poll(0 if self._stalled else self._patience * 1000):
                self._stalled = True
                return False
            data = data[os.write(self._descriptor, data) :]
        self._stalled = False
        return True


class Stdout(Plugin):
    """Prints what it is configured to subscribe to."""

    async def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        self._settings = Settings(**config)
        self._render = render_json if self._settings.format == "json" else render_pretty
        self._paper = Paper(STDOUT, self._settings.patience_secs)
        self._missed = 0

    async def start(self) -> None:
        """Subscribe. While a thread waits for the reader, the broker keeps the newest events and counts the others."""
        for pattern in self._settings.patterns:
            await self.bus.subscribe(pattern, self.show, batch=100, batch_wait=0.02, overflow="drop_oldest")

    async def health(self) -> dict[str, Any]:
        """Not well while nobody reads."""
        reason = f"nobody reads stdout: {self._missed} events passed over" if self._missed else ""
        return {"ok": not reason, "reason": reason}

    def show(self, events: list[Event]) -> None:
        """Print events; a plain function, so it runs in a thread."""
        for event in events:
            if self._missed and self._paper.write(self._gap()):
                self._missed = 0
            line = self._render(event, datetime.now(UTC), self._settings.max_line)
            if self._missed or not self._paper.write(line):
                self._missed += 1

    def _gap(self) -> str:
        return json.dumps({"missed": self._missed}) if self._settings.format == "json" else f"… {self._missed} missed"


def render_pretty(event: Event, time: datetime, limit: int) -> str:
    """Time, subject and data for people, cut to `limit` bytes."""
    try:
        data = json.dumps(event.data, ensure_ascii=False, default=repr)
    except BusError:
        data = f"({len(event.body)} bytes that are not msgpack)"
    except (TypeError, ValueError, RecursionError):  # msgpack can say more than JSON, such as maps with bytes as keys
        data = repr(event.data)
    line = f"{time:%H:%M:%S}.{time.microsecond // 1000:03} {event.subject} {data}"
    text = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), line).encode()
    return text.decode() if len(text) <= limit else text[: limit - 3].decode(errors="ignore") + "…"


def render_json(event: Event, time: datetime, limit: int) -> str:
    """One JSON object; data that is no JSON, or does not fit into `limit` bytes, is replaced by its size."""
    head = {"time": time.isoformat(timespec="milliseconds"), "subject": event.subject}
    try:
        line = json.dumps(head | {"data": event.data}, default=repr, allow_nan=False)
    except (BusError, TypeError, ValueError, RecursionError):
        return json.dumps(head | {"bytes": len(event.body), "cause": "not JSON"})
    return line if len(line) <= limit else json.dumps(head | {"bytes": len(event.body), "cause": "too long"})


if __name__ == "__main__":
    Stdout("stdout", version="1.0.0", description="Prints the events of the mesh").run()
