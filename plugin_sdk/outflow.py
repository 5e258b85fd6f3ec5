"""What this process has to say: packets of one turn become one frame, publishers wait for credit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode
from plugin_sdk.wire.limits import FRAME_TARGET
from plugin_sdk.wire.outbox import Outbox

# So many requests or replies go out before the end of a turn: the other side can begin while this one goes on.
PIPELINE = 128

log = logging.getLogger("plugin_sdk")


class Outflow:
    """The outbox of the present session, and those who wait for room in it.

    The publisher's path in `client.Bus.publish` writes to `outbox` directly. `unsent_bytes` counts what the ends of
    sessions have cost; `is_open` says whether one stands.

    Args:
        transmit: hands a frame to the transport; False when it takes none now.
    """

    def __init__(self, transmit: Callable[[bytes], bool]) -> None:
        self.outbox = _nowhere()
        self._transmit = transmit
        self._loop = asyncio.get_running_loop()
        self.is_open = False
        self._planned = False
        self._waiting: dict[asyncio.Future[None], None] = {}
        self.unsent_bytes = 0

    def begin(self, session: int, credit: int) -> None:
        """A session stands, and takes so many bytes of events."""
        self.is_open = True
        self.outbox = Outbox(b"", session, 0, credit, [])

    def end(self) -> None:
        """The session is over: nothing that was to be said in it is valid any more."""
        if self.outbox.pending_bytes:
            self.unsent_bytes += self.outbox.pending_bytes
            log.warning("%d bytes had not been sent yet when the session ended", self.outbox.pending_bytes)
        self.is_open = False
        self.outbox = _nowhere()
        self.wake()

    def send(self, packet: p.Packet) -> None:
        """Put a packet into this turn's frame. Without a session it goes nowhere."""
        self.outbox.add(encode(packet))
        if self.outbox.count >= PIPELINE:
            self.flush()
        elif not self._planned:
            self.plan_flush()

    def send_now(self, packet: p.Packet) -> None:
        """Put a packet into the frame and send it."""
        self.outbox.add(encode(packet))
        self.flush()

    def plan_flush(self) -> None:
        """Flush at the end of this turn of the loop."""
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what was gathered, as far as the transport takes it."""
        self._planned = False
        if not self.is_open:
            self.outbox = _nowhere()
            return
        outbox = self.outbox
        outbox.listing.clear()
        outbox.listed = False
        while (frame := outbox.take()) is not None:
            if not self._transmit(frame):
                outbox.put_back(frame)
                if outbox.size > FRAME_TARGET:
                    # What comes next must not make one frame of it that the broker refuses as too large.
                    outbox.seal()
                return

    def takes_events(self) -> bool:
        """Whether broker and transport take another event now."""
        self.flush()
        return self.outbox.allowance > 0 and not self.outbox.sealed

    def add_credit(self, amount: int) -> None:
        """The broker takes `amount` more bytes of events."""
        self.outbox.allowance += amount
        self.wake()

    async def changed(self) -> None:
        """Return once there may be room, or the session has ended."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting[waiter] = None
        try:
            await waiter
        finally:
            self._waiting.pop(waiter, None)

    def wake(self) -> None:
        """There may be room: let those who wait look again, in their order."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()


def _nowhere() -> Outbox:
    """Takes packets that no session would take; without allowance, so that publishers wait."""
    return Outbox(b"", 0, 0, 0, [])
