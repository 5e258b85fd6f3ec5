"""What was refused to peers of late, by the name that they go by: the other half of `why`."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

MAX_NAMES = 256
MAX_INCIDENTS = 5
LATE_SECS = 600.0
# A name that was refused is whatever the peer claimed, up to the size of a frame.
NAME_CHARS = 256
TEXT_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that was refused.

    Args:
        kind: `registration`, or `denied` for an action of a peer that is registered.
        code: of the error.
        text: what was said to the peer.
        pid: its process, 0 when that is not known.
        age: seconds ago.
    """

    kind: str
    code: str
    text: str
    pid: int
    age: float


class Lately:
    """A bounded memory of incidents; anybody may claim any name, so many names must not grow it for ever.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._incidents: OrderedDict[str, deque[tuple[float, Incident]]] = OrderedDict()

    def note(self, name: str, kind: str, code: str, text: str, pid: int) -> None:
        """Remember something that was refused just now."""
        name = name[:NAME_CHARS]
        incidents = self._incidents.setdefault(name, deque(maxlen=MAX_INCIDENTS))
        incidents.append((self._clock(), Incident(kind, code, text[:TEXT_CHARS], pid, 0.0)))
        self._incidents.move_to_end(name)
        if len(self._incidents) > MAX_NAMES:
            self._incidents.popitem(last=False)

    def of(self, name: str) -> list[Incident]:
        """What was refused to this name within the last ten minutes, newest last."""
        now = self._clock()
        return [
            Incident(each.kind, each.code, each.text, each.pid, now - when)
            for when, each in self._incidents.get(name, ())
            if now - when <= LATE_SECS
        ]
