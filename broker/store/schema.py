"""The tables as the code expects them; `migrations/` brings a database there (a test compares the two)."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

from broker.store.writes import ID_CHARS, LINE_BYTES, WORD_BYTES


class _Moment(TypeDecorator[datetime]):
    """A time to the microsecond."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        if dialect.name not in ("mysql", "mariadb"):
            return super().load_dialect_impl(dialect)
        # Not at the top: a broker on SQLite would keep the memory of it for nothing.
        from sqlalchemy.dialects.mysql import DATETIME

        # A plain DATETIME of MariaDB rounds to whole seconds.
        return dialect.type_descriptor(DATETIME(fsp=6))


# Only a column declared INTEGER numbers its rows by itself in SQLite.
_RowNumber = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

plugins = Table(
    "t_plugin",
    metadata,
    Column("node", String(ID_CHARS), primary_key=True),
    Column("plugin_id", String(ID_CHARS), primary_key=True),
    Column("name", String(LINE_BYTES), nullable=False),
    Column("version", String(WORD_BYTES), nullable=False),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=text("1")),
    Column("desired_state", String(WORD_BYTES), nullable=False),
    Column("register_status", Integer, nullable=False, server_default=text("0")),
    Column("register_error", Text, nullable=True),
    Column("restarts", Integer, nullable=False, server_default=text("0")),
    Column("last_exit", Text, nullable=True),
    Column("created_at", _Moment, nullable=False),
    Column("updated_at", _Moment, nullable=False),
    Index("idx_register_status", "register_status"),
)

quarantine = Table(
    "t_quarantine",
    metadata,
    Column("node", String(ID_CHARS), primary_key=True),
    Column("plugin_id", String(ID_CHARS), primary_key=True),
    Column("digest", String(WORD_BYTES), primary_key=True),
    Column("version", String(WORD_BYTES), nullable=False),
    Column("reason", Text, nullable=False),
    Column("released", Boolean, nullable=False, server_default=text("0")),
    Column("happened_at", _Moment, nullable=False),
)

audit = Table(
    "t_audit",
    metadata,
    Column("id", _RowNumber, primary_key=True, autoincrement=True),
    Column("entry", String(32), nullable=False),
    Column("node", String(ID_CHARS), nullable=False),
    Column("happened_at", _Moment, nullable=False),
    Column("actor", String(LINE_BYTES), nullable=False),
    Column("action", String(LINE_BYTES), nullable=False),
    Column("target", String(LINE_BYTES), nullable=False),
    Column("result", String(LINE_BYTES), nullable=False),
    Column("detail", Text, nullable=False),
    UniqueConstraint("entry", name="uq_audit_entry"),
    Index("idx_audit_target", "target"),
)
