"""What one process of a run did and saw: lines in a file of its own, which survive its kill -9.

Each line goes out by one write to a file opened for appending, so whatever the process has written stays, at whatever
instruction it is killed. It begins with a time in microseconds of the monotonic clock, which all processes share:

    begin                           the process has begun
    in SESSION EPOCH                a session stands, with all subscriptions and services
    out SESSION                     it does not stand any more
    publish NUMBER WEIGHT           an event is about to be published
    published NUMBER SESSION        it was handed over in this session, 0 when the session ended in that moment
    unpublished NUMBER CODE         it was not
    event EPOCH PUBLISHER NUMBER    an event has come
    call ID MILLISECONDS            a request is about to be made
    ended ID OUTCOME [DETAIL]       its outcome
    run ID                          a request has come
    leave                           told to stop: what is in hand is finished
    quiet                           from now on nothing is published or asked
    exit STATUS                     the process ends by itself
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path


def now() -> int:
    """Microseconds of the monotonic clock."""
    return time.monotonic_ns() // 1000


class Ledger:
    """The ledger of this process.

    Args:
        folder: where all ledgers of the run are.
        label: of the party that this process is.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self.who = f"{label}.{os.getpid()}"
        self._file = os.open(folder / self.who, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self.write("begin")

    def write(self, *fields: object) -> None:
        """Add a line."""
        os.write(self._file, f"{now()} {' '.join(map(str, fields))}\n".encode())


def read_lines(path: Path) -> Iterator[list[str]]:
    """The fields of every line; one without its end was cut off by a kill, and says nothing."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield line.split()
