"""Writes as values: what is to be stored, made to fit the columns before it waits in the backlog.

A text that is too long or not valid Unicode would make MariaDB refuse the whole write, and a registration status
must not get lost because a plugin died with a long message.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from broker.store.records import RegisterStatus

ID_CHARS = 255
WORD_BYTES = 64
LINE_BYTES = 255
# A TEXT column of MySQL and MariaDB holds 65,535 bytes.
TEXT_BYTES = 65_535

# A dict of ten entries, its datetimes and the short texts' heads, as sys.getsizeof tells.
_ROW_BYTES = 1_000


class Kind(Enum):
    """The statement that a write is executed with; also the columns it sets."""

    DESCRIBED = auto()
    STATUS = auto()
    EXIT = auto()
    AUDIT = auto()
    QUARANTINE = auto()


@dataclass(frozen=True, slots=True)
class Write:
    """One row to insert or update; `target` is the plugin id, or what an audit entry is about."""

    kind: Kind
    target: str
    values: Mapping[str, object]

    @property
    def size(self) -> int:
        """About how many bytes the write occupies while it waits."""
        return _ROW_BYTES + sum(len(value) for value in self.values.values() if isinstance(value, str))

    @property
    def key(self) -> tuple[Kind, str] | None:
        """Writes with the same key set the same columns of the same row; audit entries have none."""
        if self.kind is Kind.AUDIT:
            return None
        return (self.kind, f"{self.target} {self.values.get('digest', '')}")

    def __str__(self) -> str:
        what = self.values["action"] if self.kind is Kind.AUDIT else self.kind.name.lower()
        return f"{what} of {self.target!r}"


def described(
    node: str,
    plugin_id: str,
    at: datetime,
    *,
    name: str,
    version: str,
    description: str,
    enabled: bool,
    desired_state: str,
) -> Write:
    """Describe a plugin as its manifest and the operator have it."""
    row = _plugin_row(node, plugin_id, at)
    row |= {"name": fit(name, LINE_BYTES), "version": fit(version, WORD_BYTES), "enabled": enabled}
    row |= {"description": fit(description), "desired_state": fit(desired_state, WORD_BYTES)}
    return Write(Kind.DESCRIBED, plugin_id, row)


def status(node: str, plugin_id: str, at: datetime, status: RegisterStatus, error: str | None) -> Write:
    """Set how far the registration got; success clears the error (PLG-4)."""
    kept = None if error is None or status is RegisterStatus.REGISTERED else fit(error)
    row = _plugin_row(node, plugin_id, at) | {"register_status": int(status), "register_error": kept}
    return Write(Kind.STATUS, plugin_id, row)


def exited(node: str, plugin_id: str, at: datetime, exit_text: str, restarts: int) -> Write:
    """Set how the process of a plugin ended last and how often it was restarted."""
    row = _plugin_row(node, plugin_id, at) | {"last_exit": fit(exit_text), "restarts": restarts}
    return Write(Kind.EXIT, plugin_id, row)


def audited(node: str, at: datetime, actor: str, action: str, target: str, result: str, detail: str) -> Write:
    """Add an entry to the audit log.

    The entry gets an id of its own, so that writing it again after a commit whose answer got lost adds no second one.
    """
    row: dict[str, object] = {"entry": os.urandom(16).hex(), "node": node, "happened_at": _stored(at)}
    row |= {"actor": fit(actor, LINE_BYTES), "action": fit(action, LINE_BYTES), "detail": fit(detail)}
    row |= {"target": fit(target, LINE_BYTES), "result": fit(result, LINE_BYTES)}
    return Write(Kind.AUDIT, target, row)


def quarantined(
    node: str, plugin_id: str, at: datetime, digest: str, version: str, reason: str, *, released: bool
) -> Write:
    """Keep content of a plugin from being started, or let it be again."""
    row: dict[str, object] = {"node": node, "plugin_id": _unicode(plugin_id), "digest": fit(digest, WORD_BYTES)}
    row |= {"version": fit(version, WORD_BYTES), "reason": fit(reason), "released": released}
    return Write(Kind.QUARANTINE, plugin_id, row | {"happened_at": _stored(at)})


def fit(text: str, limit: int = TEXT_BYTES) -> str:
    """Return `text` as valid Unicode of at most `limit` bytes in UTF-8, the middle left out when it is longer."""
    data = _unicode(text).encode()
    if len(data) <= limit:
        return data.decode()
    mark = f" … [{len(data)} bytes] … ".encode()
    head = (limit - len(mark)) // 2
    tail = limit - len(mark) - head
    kept = (data[:head], mark, data[-tail:])
    return "".join(part.decode("utf-8", "ignore") for part in kept)


def _plugin_row(node: str, plugin_id: str, at: datetime) -> dict[str, object]:
    # Any of the three kinds may be the first that the table hears of a plugin, and merging may remove the others,
    # so each is an upsert with the columns that a new row cannot do without.
    row: dict[str, object] = {"node": node, "plugin_id": _unicode(plugin_id), "name": fit(plugin_id, LINE_BYTES)}
    row |= {"version": "", "description": "", "desired_state": ""}
    return row | {"created_at": _stored(at), "updated_at": _stored(at)}


def _unicode(text: str) -> str:
    # What a process printed was decoded with surrogateescape, and no driver takes lone surrogates.
    return text.encode("utf-8", "backslashreplace").decode()


def _stored(at: datetime) -> datetime:
    # Neither database keeps a time zone: the columns hold UTC.
    return at.astimezone(UTC).replace(tzinfo=None)
