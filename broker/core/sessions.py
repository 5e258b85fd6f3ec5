"""The records of admitted peers and of the requests between them: who each is, what it asked for, what it is owed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw, Struct

from broker.core.flow import Lane, Losses, Subscription
from broker.core.grants import UNRESTRICTED, Permissions, Verdicts, verdicts
from plugin_sdk.wire.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Origin:
    """What the transport, not the peer, says about where a frame came from.

    `pid`, `group` (process group) and `uid` are 0, 0 and -1 when the transport cannot know them; `user` is the name
    that a CURVE key proved; `chosen` says that the peer chose its address itself.
    """

    transport: str
    pid: int = 0
    group: int = 0
    uid: int = -1
    user: str = ""
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session is, and how that was proven: `managed`, `key`, `operator`, `curve` or `local`.

    `mount`: the name under which it serves, when that is not its own. `routed`: whether it is to be routed from its
    beginning. `version`: what its manifest says; empty when only the process itself says something.
    """

    name: str
    proof: str
    operator: bool = False
    permissions: Permissions = UNRESTRICTED
    mount: str = ""
    routed: bool = True
    version: str = ""

    @property
    def local(self) -> bool:
        """Whether this is the broker itself."""
        return self.proof == "local"


@dataclass(slots=True, eq=False)
class Session:
    """The broker's record of one admitted peer. Mutable, owned by the router, never handed out: see snapshot.py.

    `pid` is what the kernel says, 0 when it cannot know, as over TCP; `claimed_pid` is what the peer says. `routed`:
    whether its services and subscriptions are in force; those of a standby are only kept.
    """

    number: int
    peer: bytes
    role: str
    version: str
    instance: str
    nonce: str
    pid: int
    language: str
    sdk: str
    identity: Identity
    origin: Origin
    protocol: int
    opened: float
    outbox: Outbox
    last_seen: float
    claimed_pid: int = 0
    token: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    declared: tuple[str, ...] = ()
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    lanes: dict[tuple[str, int], Lane] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    withdrawn: dict[str, Instance] = field(default_factory=dict)  # those whose old requests still ran at that moment
    calls: dict[int, Pending] = field(default_factory=dict)
    serving: dict[int, Pending] = field(default_factory=dict)
    held: int = 0  # bytes of its calls that wait at the broker for an instance with room
    published: int = 0
    losses: Losses = field(default_factory=Losses)
    errors: int = 0
    routed: bool = True
    may_publish: Verdicts | None = None
    may_call: Verdicts | None = None
    may_offer: Verdicts | None = None

    def __post_init__(self) -> None:
        self.may_publish = verdicts(self.permissions.publish)
        self.may_call = verdicts(self.permissions.call)
        self.may_offer = verdicts(self.permissions.offer)

    @property
    def permissions(self) -> Permissions:
        """What it was granted."""
        return self.identity.permissions

    @property
    def name(self) -> str:
        """The proven name."""
        return self.identity.name

    @property
    def mount(self) -> str:
        """The name under which it serves: its own, unless the broker has mounted it on another plugin."""
        return self.identity.mount or self.identity.name

    @property
    def waiting(self) -> int:
        """Events that wait here for its credit."""
        return sum(len(lane.waiting) for lane in self.lanes.values())

    @property
    def waiting_bytes(self) -> int:
        """What those take in memory, by their cost in credit."""
        return sum(lane.size for lane in self.lanes.values())


@dataclass(slots=True, eq=False)
class Instance:
    """One process that serves one service; `limit` requests at a time at most.

    `disclose`: its requests say who the caller is.
    """

    session: Session
    limit: int
    disclose: bool = False
    outstanding: int = 0
    served: int = 0


class Pending(Struct, eq=False):
    """One request that has not ended. `instance` is None while it waits for one."""

    id: int
    caller: Session
    ref: int
    service: str
    payload: Raw
    deadline: float
    slot: int
    options: dict[str, Any] | None
    give_up: float
    instance: Instance | None = None
    chunks: int = 0
