"""Does everything agree once there is quiet: status, database, process table, and the size of the broker?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from tools.disorder.books import Book
from tools.disorder.cast import CAST
from tools.disorder.stage import Stage

REGISTERED = 2
MIB = 1 << 20
# What a broker that has been through it all may have more than a new one for the same parties: what the allocator keeps
# after the worst moment, and a connection that is just being closed.
MORE_MEMORY, MORE_DESCRIPTORS = 24 * MIB, 2


@dataclass(frozen=True, slots=True)
class Size:
    """The broker's memory in bytes, and its descriptors."""

    memory: int
    descriptors: int

    def __str__(self) -> str:
        return f"{self.memory / MIB:.1f} MiB and {self.descriptors} descriptors"


def check_rows(rows: dict[str, dict[str, Any]], books: dict[str, Book]) -> Iterator[str]:
    """Status and the parties themselves."""
    for label, row in rows.items():
        live = [book for book in books.values() if book.member.label == label and book.who == f"{label}.{row['pid']}"]
        if (row["state"], row["registration"]) != ("running", "registered") or not live:
            yield f"status says that {label} is {row['state']} as process {row['pid']}"
        elif live[0].spans[-1].session != row["session"]:
            yield f"status says that {label} has session {row['session']}, it has {live[0].spans[-1].session}"
        elif row["waiting_bytes"] or any(each["outstanding"] for each in row["services"]):
            yield f"something still waits for {label}: {row['waiting_bytes']} bytes, {row['services']}"


def check_database(found: Sequence[tuple[Any, ...]], rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The table of plugins and the status."""
    named = {name: (status, error) for name, status, error in found}
    for name in {row["name"] for row in rows.values()}:
        if named.get(name) != (REGISTERED, None):
            yield f"t_plugin has {named.get(name)} for {name}, which is registered"


def check_processes(stage: Stage, rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The process table: no party twice, nothing that nobody knows, no zombie."""
    allowed = {stage.home.pid, *(row["pid"] for row in rows.values())}
    for process in stage.processes():
        with_parents = {process.pid, *(each.pid for each in process.parents())}
        if process.pid in allowed:
            continue
        # The launcher, and the guards of plugins.
        if "broker" not in " ".join(process.cmdline()) or stage.home.pid not in with_parents:
            yield f"process {process.pid} is an orphan: {' '.join(process.cmdline())}"
    for process in psutil.Process().children(recursive=True):
        if process.status() == psutil.STATUS_ZOMBIE:
            yield f"process {process.pid} is a zombie: {process.name()}, child of {process.ppid()}"


def check_drops(rows: dict[str, dict[str, Any]], books: dict[str, Book]) -> Iterator[str]:
    """Drops: what the broker has counted is what the ledgers miss, for each subscription in force at the end."""
    for member in CAST:
        if member.role == "subscriber" and member.overflow != "block":
            row = rows[member.label]
            counted = sum(each["dropped"] for each in row["subscriptions"])
            least, most = missed(books[f"{member.label}.{row['pid']}"], books)
            if not least <= counted <= most:
                yield f"{counted} events for {member.label} were counted as dropped, {least} to {most} are missing"


def missed(subscriber: Book, books: dict[str, Book]) -> tuple[int, int]:
    """How many events a subscriber misses in its present session: for certain, and at most.

    What was published while it subscribed may have been before or after that; what came last from a publisher that has
    ended may have been lost with it.
    """
    taker = subscriber.spans[-1]
    least = most = 0
    for publisher in books.values():
        if publisher.member.role != "publisher" or publisher.member.topic != subscriber.member.topic:
            continue
        came = {each.number for each in subscriber.receipts.get(publisher.who, []) if each.epoch == taker.epoch}
        last = max(came, default=0)
        for event in publisher.published.values():
            sender = publisher.span_of(event.session)
            if event.number in came or event.refused or (sender is not None and sender.end < taker.begin):
                continue
            certain = sender is not None and event.begun >= taker.begin and (event.number < last or sender.lasted)
            least += certain
            most += certain or event.done >= taker.begin - 10**6
    return least, most
