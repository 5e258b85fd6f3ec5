"""Publishes what was recorded, in its order, at its own pace or another."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from msgspec import Raw

from broker.recording.reader import Record
from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import BusError, ConnectionLost, RemoteProtocolError

HEADER = "recorded-at"  # marks an event as replayed, with the time of the original
READ_AHEAD = 512
_MICRO = 1_000_000
_EARLY_SECS = 0.001  # a sleep shorter than this takes longer than it says


@dataclass(frozen=True, slots=True)
class Pace:
    """When each event is due.

    Args:
        speed: times the original one; None for as fast as it goes.
        rate: events a second at most, or None.
    """

    speed: float | None = 1.0
    rate: float | None = None

    def due(self, elapsed_us: int, number: int) -> float:
        """Seconds after the beginning at which an event is to be published.

        Args:
            elapsed_us: between the first event and this one, in the recording.
            number: of events published before it.
        """
        at = elapsed_us / _MICRO / self.speed if self.speed else 0.0
        return max(at, number / self.rate) if self.rate else at


@dataclass(slots=True)
class Played:
    """What became of the events of a recording; `late_secs` is by how much the pace was missed at worst."""

    published: int = 0
    passed_over: int = 0
    malformed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    late_secs: float = 0.0


class Player:
    """Publishes events; interrupted at any point, `played` says how far it came.

    Args:
        bus: an open session.
        pace: how fast.
        wanted: whether a subject is to be published at all.
        played: where it is counted what became of the events.
        watch: called after every few hundred events.
    """

    def __init__(
        self, bus: Bus, pace: Pace, wanted: Callable[[str], bool], played: Played, watch: Callable[[], None]
    ) -> None:
        self._bus = bus
        self._pace = pace
        self._wanted = wanted
        self._watch = watch
        self._began = 0.0
        self._first_us: int | None = None
        self._moment = (0, moment(0))
        self.played = played

    async def run(self, records: Iterator[Record]) -> None:
        """Publish them all.

        Raises:
            ConnectionLost: the broker is gone.
            RecordingError: a file can no longer be read.
        """
        while batch := await asyncio.to_thread(lambda: list(islice(records, READ_AHEAD))):
            for record in batch:
                if self._wanted(record.subject):
                    await self._play(record)
                else:
                    self.played.passed_over += 1
            self._watch()

    async def _play(self, record: Record) -> None:
        try:
            headers, body = record.content()
        except RemoteProtocolError:
            self.played.malformed += 1
            return
        await self._wait_for(record.time_us)
        try:
            # Raw: the body goes out as the bytes that it is, whatever they mean.
            headers[HEADER] = self._moment_of(record.time_us)
            await self._bus.publish(record.subject, Raw(body), headers=headers)
        except ConnectionLost:
            raise
        except BusError as error:
            self.played.refused[error.code] += 1
        else:
            self.played.published += 1

    def _moment_of(self, time_us: int) -> str:
        # Events that arrived together have one time, and to format it costs more than all else.
        if self._moment[0] != time_us:
            self._moment = (time_us, moment(time_us))
        return self._moment[1]

    async def _wait_for(self, time_us: int) -> None:
        now = time.monotonic()
        if self._first_us is None:
            self._first_us, self._began = time_us, now
        early = self._began + self._pace.due(time_us - self._first_us, self.played.published) - now
        if early > _EARLY_SECS:
            await asyncio.sleep(early)
        elif self._pace.speed:
            self.played.late_secs = max(self.played.late_secs, -early)


def moment(time_us: int) -> str:
    """RFC 3339, in UTC."""
    try:
        moment = datetime.fromtimestamp(time_us / _MICRO, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_us} µs"
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
