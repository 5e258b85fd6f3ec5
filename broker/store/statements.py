"""The SQL of each kind of write, and the queries of the repositories."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, Insert, Row, Table, Update, delete, select, update
from sqlalchemy.dialects import sqlite

from broker.store.records import AuditRecord, PluginRecord, QuarantineRecord, RegisterStatus
from broker.store.schema import audit, plugins, quarantine
from broker.store.writes import Kind

_SETS = {
    Kind.DESCRIBED: ("name", "version", "description", "enabled", "desired_state", "updated_at"),
    Kind.STATUS: ("register_status", "register_error", "updated_at"),
    Kind.EXIT: ("last_exit", "restarts", "updated_at"),
}


def writing(dialect: str) -> Mapping[Kind, Insert]:
    """Return the statement of each kind of write for `dialect`; running one again changes nothing."""
    upsert = _sqlite_upsert if dialect == "sqlite" else _mysql_upsert
    statements: dict[Kind, Insert] = {kind: upsert(plugins, columns) for kind, columns in _SETS.items()}
    # Setting a unique column to itself is the portable way to do nothing: INSERT IGNORE would hide other errors.
    statements[Kind.AUDIT] = upsert(audit, ("entry",))
    statements[Kind.QUARANTINE] = upsert(quarantine, ("version", "reason", "released", "happened_at"))
    return statements


def forget_registrations(node: str, now: datetime) -> Update:
    """Set the plugins of `node` that claim to be registering or registered to unregistered."""
    claimed = plugins.c.register_status.in_((RegisterStatus.REGISTERING, RegisterStatus.REGISTERED))
    reset = update(plugins).where(plugins.c.node == node, claimed)
    return reset.values(register_status=RegisterStatus.UNREGISTERED, updated_at=now)


def all_plugins(connection: Connection, node: str) -> Sequence[PluginRecord]:
    """Return the plugins of `node` in the order of their ids."""
    query = select(plugins).where(plugins.c.node == node).order_by(plugins.c.plugin_id)
    return [_plugin(row) for row in connection.execute(query)]


def one_plugin(connection: Connection, node: str, plugin_id: str) -> PluginRecord | None:
    """Return the plugin with this id of `node`, if the database knows it."""
    query = select(plugins).where(plugins.c.node == node, plugins.c.plugin_id == plugin_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _plugin(row)


def newest_audits(connection: Connection, node: str, limit: int, target: str | None) -> Sequence[AuditRecord]:
    """Return the newest `limit` audit entries of `node`, about `target` if given, newest first."""
    query = select(audit).where(audit.c.node == node).order_by(audit.c.id.desc()).limit(limit)
    if target is not None:
        query = query.where(audit.c.target == target)
    return [_audit(row) for row in connection.execute(query)]


def quarantine_of(connection: Connection, node: str, plugin_id: str | None) -> Sequence[QuarantineRecord]:
    """Return the quarantine of `node`, that of one plugin if given, newest first."""
    query = select(quarantine).where(quarantine.c.node == node).order_by(quarantine.c.happened_at.desc())
    if plugin_id is not None:
        query = query.where(quarantine.c.plugin_id == plugin_id)
    return [_quarantined(row) for row in connection.execute(query)]


def remove_audits(connection: Connection, node: str, before: datetime, most: int) -> int:
    """Remove the audit entries of `node` from before a moment, `most` at a time; return how many these were."""
    # Entries come in the order of time: looking at the oldest needs no index of its own, however many there are.
    oldest = select(audit.c.id, audit.c.happened_at).where(audit.c.node == node).order_by(audit.c.id).limit(most)
    old = [row.id for row in connection.execute(oldest) if row.happened_at < before]
    if old:
        connection.execute(delete(audit).where(audit.c.id.in_(old)))
    return len(old)


def _sqlite_upsert(table: Table, columns: Sequence[str]) -> Insert:
    statement = sqlite.insert(table)
    keys = ["entry"] if table is audit else [column.name for column in table.primary_key]
    return statement.on_conflict_do_update(keys, set_={name: statement.excluded[name] for name in columns})


def _mysql_upsert(table: Table, columns: Sequence[str]) -> Insert:
    # Not at the top: a broker on SQLite would keep the memory of it for nothing.
    from sqlalchemy.dialects import mysql

    statement = mysql.insert(table)
    return statement.on_duplicate_key_update({name: statement.inserted[name] for name in columns})


def _plugin(row: Row[tuple[object, ...]]) -> PluginRecord:
    values = {name: value for name, value in row._mapping.items() if name != "node"}
    values["register_status"] = RegisterStatus(values["register_status"])
    values["created_at"] = values["created_at"].replace(tzinfo=UTC)
    values["updated_at"] = values["updated_at"].replace(tzinfo=UTC)
    return PluginRecord(**values)


def _quarantined(row: Row[tuple[object, ...]]) -> QuarantineRecord:
    values = {name: value for name, value in row._mapping.items() if name != "node"}
    values["happened_at"] = values["happened_at"].replace(tzinfo=UTC)
    return QuarantineRecord(**values)


def _audit(row: Row[tuple[object, ...]]) -> AuditRecord:
    values = row._mapping
    return AuditRecord(
        happened_at=values["happened_at"].replace(tzinfo=UTC),
        actor=values["actor"],
        action=values["action"],
        target=values["target"],
        result=values["result"],
        detail=values["detail"],
    )
