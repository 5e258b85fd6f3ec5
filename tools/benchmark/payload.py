"""The event and the request that every system carries, and the codec that every system uses for them."""

from collections.abc import Iterator
from itertools import chain, repeat

import msgspec

SUBJECT = "bench.events"
SERVICE = "bench.echo"

# Numbers of events that are not counted: a probe shows that the path is open and warms it up; the two
# markers travel in the stream of events, so their delivery brackets the deliveries that are measured.
PROBE = -1
BEGIN = -2
END = -3

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


def make_event(publisher: int, number: int) -> dict[str, object]:
    """Make an event of 110 to 125 bytes when encoded, of the kinds of value that real events have."""
    return {
        "id": number,
        "publisher": publisher,
        "user": "u-1048576",
        "action": "order.created",
        "priority": "high",
        "amount": 129.95,
        "items": [1, 2, 3],
        "paid": True,
        "session": "8f14e45fceea167a",
    }


def numbers(count: int, warmup: int) -> Iterator[int]:
    """The numbers one publisher sends: `warmup` probes, BEGIN, 0 to `count` - 1, END."""
    return chain(repeat(PROBE, warmup), (BEGIN,), range(count), (END,))
