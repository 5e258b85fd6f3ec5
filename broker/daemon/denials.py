"""What peers were refused: into the log and the audit log, but never so much that one of them floods these."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broker.core.notices import PeerMisbehaved, RegistrationRefused
from broker.telemetry.logs import Throttle

WINDOW_SECS = 60.0
# What is new within a window and finds no place any more is counted together.
MAX_KINDS = 100
# A name that was refused is whatever the peer claimed, up to the size of a frame.
NAME_CHARS = 256
DETAIL_CHARS = 1000
EVERYBODY_ELSE = "several peers"

log = logging.getLogger("broker")

Key = tuple[str, str, str]


class Record(Protocol):
    """Writes an entry of the audit log."""

    def __call__(self, actor: str, action: str, target: str, result: str, detail: str) -> None: ...


@dataclass(slots=True)
class _Entry:
    """The newest of one kind, and how many came after the first within the window that ends at `until`."""

    actor: str
    action: str
    target: str
    result: str
    detail: str
    until: float
    further: int = 0


class Denials:
    """Audits the first of a kind at once and the others of the same window as one entry with their number.

    Args:
        record: writes an entry.
        clock: monotonic seconds.
        later: calls a function after so many seconds.
    """

    def __init__(
        self, record: Record, clock: Callable[[], float], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._record = record
        self._clock = clock
        self._later = later
        self._kinds: dict[Key, _Entry] = {}
        self._planned = False
        self._throttle = Throttle(log)

    def refused(self, notice: RegistrationRefused) -> None:
        """A peer was not admitted."""
        name, text = notice.name[:NAME_CHARS], notice.text[:DETAIL_CHARS]
        kind = f"registration of {name!r} refused"
        where = f"process {notice.pid}" if notice.pid else notice.transport
        self._throttle.warning(kind, self._clock(), "%s (%s): %s: %s", kind, where, notice.code, text)
        self._add(name, "register", name, "refused", f"{notice.code}: {text} ({where})", notice.code)

    def misbehaved(self, notice: PeerMisbehaved) -> None:
        """A peer broke the protocol, or wanted what it may not; only the latter is audited."""
        who = notice.name or "an unregistered peer"
        kind = f"{notice.code} from {who}"
        self._throttle.warning(kind, self._clock(), "%s: %s", kind, notice.text)
        if notice.code == "denied":
            self._add(notice.name, "denied", "bus", "denied", notice.text, notice.text)

    def flush(self) -> None:
        """Record what was counted, whether its window is over or not."""
        for entry in self._kinds.values():
            self._tell(entry)
        self._kinds.clear()

    def _add(self, actor: str, action: str, target: str, result: str, detail: str, cause: str) -> None:
        key = (actor, action, cause)
        if key not in self._kinds and len(self._kinds) >= MAX_KINDS:
            self._end_windows()
        if key not in self._kinds and len(self._kinds) >= MAX_KINDS:
            key, actor, target = ("", action, ""), EVERYBODY_ELSE, EVERYBODY_ELSE
        entry = self._kinds.get(key)
        if entry is None:
            self._kinds[key] = _Entry(actor, action, target, result, detail, self._clock() + WINDOW_SECS)
            self._record(actor, action, target, result, detail)
        else:
            entry.further, entry.detail = entry.further + 1, detail
        self._plan()

    def _end_windows(self) -> None:
        now = self._clock()
        for key, entry in list(self._kinds.items()):
            if entry.until <= now:
                self._tell(entry)
                del self._kinds[key]

    def _tell(self, entry: _Entry) -> None:
        if entry.further:
            text = f"{entry.further} more within {WINDOW_SECS:g} s, the last: {entry.detail}"
            self._record(entry.actor, entry.action, entry.target, entry.result, text)

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._later(min(entry.until for entry in self._kinds.values()) - self._clock(), self._on_time)

    def _on_time(self) -> None:
        self._planned = False
        self._end_windows()
        if self._kinds:
            self._plan()
