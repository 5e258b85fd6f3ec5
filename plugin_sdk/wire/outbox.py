"""What one side has to say to the other, gathered until the transport takes it as frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import chain, repeat

from msgspec import Raw

from plugin_sdk.wire.codec import encode, join_frame
from plugin_sdk.wire.limits import FRAME_TARGET


class Outbox:
    """Packets for one receiver in order, with the credit for events of both directions.

    `credit` is what the receiver still takes, `allowance` what it may still publish itself, `consumed` what it has
    published and may have back; all in bytes.

    The event path of `broker.core.events` and the publisher of the SDK write to the fields directly: one event for a
    hundred subscribers must not cost a hundred method calls.
    """

    __slots__ = (
        "allowance",
        "consumed",
        "count",
        "credit",
        "listed",
        "listing",
        "number",
        "parts",
        "peer",
        "sealed",
        "sealed_bytes",
        "size",
    )

    def __init__(self, peer: bytes, number: int, credit: int, allowance: int, listing: list[Outbox]) -> None:
        self.peer = peer
        self.number = encode(number)
        self.credit = credit
        self.allowance = allowance
        self.consumed = 0
        self.listing = listing
        self.listed = False
        self.parts: list[bytes | Raw] = []
        self.count = 0
        self.size = 0
        self.sealed: deque[bytes] = deque()
        self.sealed_bytes = 0

    def add(self, packet: bytes) -> None:
        """Append one encoded packet."""
        size = self.size + len(packet)
        # Before it, not after it: a packet just under the limit of a frame must not share its frame with others.
        if size > FRAME_TARGET:
            self.seal()
            size = len(packet)
        self.size = size
        self.parts.append(packet)
        self.count += 1
        if not self.listed:
            self.listed = True
            self.listing.append(self)

    def add_all(self, head: bytes, payloads: Sequence[Raw], total: int) -> None:
        """Append one packet for each payload, all behind the same head; `total` is what they cost in credit."""
        if self.size + total > FRAME_TARGET:
            self.seal()
        self.parts.extend(chain.from_iterable(zip(repeat(head), payloads, strict=False)))
        self.count += len(payloads)
        self.size += total
        if not self.listed:
            self.listed = True
            self.listing.append(self)

    def add_frame(self, frame: bytes) -> None:
        """Append a whole frame, whatever session number it bears."""
        self.seal()
        self.sealed.append(frame)
        self.sealed_bytes += len(frame)
        if not self.listed:
            self.listed = True
            self.listing.append(self)

    def seal(self) -> None:
        """Close the frame that is being gathered."""
        if self.count:
            frame = join_frame(self.number, self.parts, self.count)
            self.sealed.append(frame)
            self.sealed_bytes += len(frame)
            self.parts.clear()
            self.count = self.size = 0

    def take(self) -> bytes | None:
        """The next frame to send, or None when everything is said."""
        if not self.sealed:
            if not self.count:
                return None
            self.seal()
        frame = self.sealed.popleft()
        self.sealed_bytes -= len(frame)
        return frame

    def put_back(self, frame: bytes) -> None:
        """Return a frame that the transport could not take."""
        self.sealed.appendleft(frame)
        self.sealed_bytes += len(frame)

    def discard(self) -> None:
        """Forget everything: its receiver is given up."""
        self.sealed.clear()
        self.parts.clear()
        self.sealed_bytes = self.count = self.size = 0

    @property
    def pending_bytes(self) -> int:
        """How much waits for the transport."""
        return self.sealed_bytes + self.size
