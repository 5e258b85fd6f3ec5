"""How events and requests are to be handled: the options of subscriptions and services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from plugin_sdk.wire.subjects import check_name

Predicate = Callable[[Any], Any]
OVERFLOW = ("block", "drop_oldest", "drop_newest", "disconnect")


@dataclass(frozen=True, slots=True)
class SubscribeOptions:
    """How events of one subscription are delivered.

    Args:
        group: queue group: one member gets each event.
        filter: only events whose data satisfies it reach the handler; a mapping means equality of these fields.
        batch: hand over lists of at most this many events; 0 hands over single ones.
        batch_wait: seconds to wait for a batch to fill, from its first event on.
        concurrency: handlers running at once; more than 1 gives up the order in which they end.
        timeout: seconds a handler may take, or None.
        overflow: what the broker does when this subscriber is slow: block, drop_oldest, drop_newest, disconnect.
        max_pending: events that may wait at the broker before that happens, or None for the broker's bound.
        last: begin with the last retained event of each matching subject.

    Raises:
        ValueError: one of them makes no sense.
        BadSubject: the group breaks the grammar of names.
    """

    group: str | None = None
    filter: Predicate | dict[str, Any] | None = None
    batch: int = 0
    batch_wait: float = 0.05
    concurrency: int = 1
    timeout: float | None = None
    overflow: str = "block"
    max_pending: int | None = None
    last: bool = False

    def __post_init__(self) -> None:
        if self.group is not None:
            check_name(self.group)
        if self.batch < 0 or self.batch_wait < 0:
            raise ValueError(f"batch is {self.batch} and batch_wait {self.batch_wait} s: use 0 or more")
        if self.concurrency < 1 or (self.max_pending is not None and self.max_pending < 1):
            raise ValueError(f"concurrency is {self.concurrency} and max_pending {self.max_pending}: use 1 or more")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout is {self.timeout} s: use more than 0, or None for no limit")
        if self.overflow not in OVERFLOW:
            raise ValueError(f"overflow is {self.overflow!r}: use one of {', '.join(OVERFLOW)}")


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How requests to one service are handled.

    Args:
        concurrency: requests in hand at once; the broker queues what is beyond it.
        timeout: seconds a handler may take, or None; the caller's own deadline holds as well.

    Raises:
        ValueError: one of them makes no sense.
    """

    concurrency: int = 64
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency is {self.concurrency}: use 1 or more")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout is {self.timeout} s: use more than 0, or None for no limit")
