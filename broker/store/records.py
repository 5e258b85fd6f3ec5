"""Values that the store hands out: rows as the broker reads them, and the state of the store itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Literal

Status = Literal["opening", "up", "down", "closed"]


class RegisterStatus(IntEnum):
    """How far the registration of a plugin got; the numbers are the ones in `t_plugin` (PLG-4)."""

    UNREGISTERED = 0
    REGISTERING = 1
    REGISTERED = 2
    FAILED = 3


class Loss(StrEnum):
    """Why a write never reached the database."""

    OVERFLOW = "audit_overflow"
    REJECTED = "rejected"
    CLOSED = "after_close"


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the store is doing at one moment.

    `pending` writes wait or are being written, `written` have landed, `merged` became superfluous by a later write
    to the same columns, `dropped` will never land; `losses` splits the last number by cause.
    """

    status: Status
    reason: str
    pending: int
    written: int
    merged: int
    dropped: int
    losses: Mapping[Loss, int]


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """A row of `t_plugin`; times are in UTC."""

    plugin_id: str
    name: str
    version: str
    description: str
    enabled: bool
    desired_state: str
    register_status: RegisterStatus
    register_error: str | None
    restarts: int
    last_exit: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class QuarantineRecord:
    """Content of a plugin that was kept from being started, why and since when (UTC); `released` when it may be."""

    plugin_id: str
    digest: str
    version: str
    reason: str
    released: bool
    happened_at: datetime


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A row of the audit log: who did what to which target, when (UTC), with what result (SEC-5)."""

    happened_at: datetime
    actor: str
    action: str
    target: str
    result: str
    detail: str
