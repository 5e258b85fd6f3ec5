"""Large frames on their way: what ZeroMQ holds counts for no bound of the router, so that it must be little.

ZeroMQ bounds its queues in frames. A hundred of the usual size are a few megabytes; a hundred answers of 8 MiB for a
peer that does not read are most of a gigabyte. pyzmq tells of a frame that it does not copy when ZeroMQ lets go of it.
"""

from __future__ import annotations

from collections import deque

import zmq

LARGE_FRAME = 256 * 1024  # bytes; below, counting would cost more than it bounds
# As much as may wait for all peers together. With less, answers that are asked for at once and read as fast as can be
# would reach the bound of an outbox, which ends the session of who does not read.
TRANSIT_BYTES = 256 * 1024 * 1024
_FORGETFUL = 64  # peers that have had large frames, before those are looked for that have taken them all


class Transit:
    """Large frames that ZeroMQ has taken and not passed on yet, by peer.

    Args:
        room: bytes of them for each peer.
    """

    def __init__(self, room: int = TRANSIT_BYTES) -> None:
        self._room = room
        self._frames: dict[bytes, deque[tuple[zmq.MessageTracker, int]]] = {}
        self._sweep_at = _FORGETFUL

    def __len__(self) -> int:
        return len(self._frames)

    def takes(self, peer: bytes, size: int) -> bool:
        """Whether a frame of so many bytes may be handed over; one that exceeds all the room goes alone."""
        on_way = self._on_way(peer)
        return not on_way or on_way + size <= self._room

    def add(self, peer: bytes, tracker: zmq.MessageTracker, size: int) -> None:
        """A frame was handed over."""
        if len(self._frames) >= self._sweep_at:
            for each in list(self._frames):
                self._on_way(each)
            self._sweep_at = 2 * len(self._frames) + _FORGETFUL
        self._frames.setdefault(peer, deque()).append((tracker, size))

    def _on_way(self, peer: bytes) -> int:
        frames = self._frames.get(peer)
        while frames and frames[0][0].done:
            frames.popleft()
        if not frames:
            self._frames.pop(peer, None)
            return 0
        return sum(size for _, size in frames)
