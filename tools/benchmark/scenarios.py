"""What is measured, and how much of it: every scenario with its sizes for a full and for a quick run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """Events of each publisher, or calls in total, and how many uncounted ones go before them."""

    count: int
    warmup: int


@dataclass(frozen=True, slots=True)
class Events:
    """Some publishers, some subscribers that each receive everything."""

    publishers: int
    subscribers: int
    full: Size
    quick: Size

    @property
    def title(self) -> str:
        """The name of the scenario in tables and options."""
        return f"events {self.publishers}→{self.subscribers}"


@dataclass(frozen=True, slots=True)
class Requests:
    """One caller process with a number of calls in flight, one server process."""

    in_flight: int
    full: Size
    quick: Size

    @property
    def title(self) -> str:
        """The name of the scenario in tables and options."""
        return "requests one at a time" if self.in_flight == 1 else f"requests {self.in_flight} in flight"


# Sized for about a second each on the slowest of the systems.
EVENTS = (
    Events(1, 1, full=Size(200_000, 2_000), quick=Size(20_000, 500)),
    Events(1, 8, full=Size(40_000, 1_000), quick=Size(4_000, 200)),
    Events(8, 1, full=Size(25_000, 500), quick=Size(6_000, 300)),
)
REQUESTS = (
    Requests(1, full=Size(3_000, 300), quick=Size(400, 50)),
    Requests(64, full=Size(40_000, 300), quick=Size(4_000, 50)),
)
# From where an event is all there is to where it does something: what a span costs is the same. Longer than the others,
# so that what tracing costs at the start of a process does not count for more than it does in a real one.
TRACING = (
    Events(1, 1, full=Size(4_000_000, 20_000), quick=Size(20_000, 500)),
    Requests(1, full=Size(10_000, 300), quick=Size(400, 50)),
    Requests(64, full=Size(500_000, 3_000), quick=Size(4_000, 50)),
)
