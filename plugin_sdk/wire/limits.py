"""Every bound of protocol version 1, in one place.

The broker enforces them, the SDK refuses to exceed them, `docs/PROTOCOL.md` repeats them and a test keeps both equal.
Sizes are bytes unless the name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL_VERSION = 1
SUPPORTED_VERSIONS = (1,)

MAX_SUBJECT_BYTES = 256
MAX_SUBJECT_TOKENS = 16
MAX_NAME_BYTES = 64
MAX_TEXT_BYTES = 16_384
MAX_TOKEN_BYTES = 512
MAX_INFO_ITEMS = 64
MAX_INFO_NESTING = 4
MAX_PATTERNS = 256  # of one permission

# An event costs this much credit beside its payload, so that a flood of empty events is bounded too: an
# entry of a Python deque with its tuple and its bytes header is about this large.
EVENT_OVERHEAD = 64

# A sender closes a frame once it holds this much: large enough to amortise the cost of a ZeroMQ message
# (tens of microseconds in Python), small enough for the caches and for the receiver's latency.
FRAME_TARGET = 32 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one broker grants; sent to every peer in REGISTERED so that no client has to guess."""

    frame_bytes: int = 8 * 1024 * 1024
    packets_per_frame: int = 16_384
    subscriptions: int = 10_000
    services: int = 1_024
    pending_requests: int = 4_096
    queued_requests: int = 4_096
    publish_credit: int = 256 * 1024
    event_credit: int = 2 * 1024 * 1024
    chunk_credit: int = 64
    backlog_bytes: int = 8 * 1024 * 1024
    backlog_events: int = 65_536
    outbox_bytes: int = 64 * 1024 * 1024
    total_bytes: int = 256 * 1024 * 1024
    retained_subjects: int = 10_000
    retained_bytes: int = 16 * 1024 * 1024
    cached_subjects: int = 65_536
    timeout_ms: int = 24 * 3600 * 1000


DEFAULT_LIMITS = Limits()
