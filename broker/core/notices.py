"""What the router tells the daemon beside packets: rare things, as values, in the order in which they happened."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.core.snapshot import SlowView


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A peer was admitted. `token` is the one that admitted a managed plugin, empty for all others."""

    session: int
    name: str
    role: str
    proof: str
    pid: int
    version: str
    token: str = field(repr=False)
    state: str


@dataclass(frozen=True, slots=True)
class SessionLost:
    """A session ended; `code` is `goodbye`, `lost`, `replaced`, or why the broker ended it.

    `waiting`: how many events waited for it, which nobody gets now.
    """

    session: int
    name: str
    role: str
    proof: str
    pid: int
    code: str
    text: str
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class RegistrationRefused:
    """A peer was not admitted under the name that it claimed."""

    name: str
    code: str
    text: str
    pid: int
    transport: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerMisbehaved:
    """A peer broke the protocol or a rule; `name` is empty for one that is not registered."""

    name: str
    pid: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class SlowConsumer:
    """A subscriber does not keep up any more, `state` slow; or it does again, `recovered`; or has left so, `gone`."""

    state: str
    consumer: SlowView


Notice = SessionOpened | SessionLost | RegistrationRefused | PeerMisbehaved | SlowConsumer
