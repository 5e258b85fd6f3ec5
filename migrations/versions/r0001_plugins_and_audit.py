"""Plugins with their registration, and the audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "0001"
down_revision = None

# The default collation of MariaDB takes "Hello" and "hello" for the same plugin; SQLite does not.
_OPTIONS = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
_Moment = sa.DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
_RowNumber = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create what is missing: MariaDB keeps the first table of an upgrade that was killed after it."""
    op.create_table(
        "t_plugin",
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("plugin_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.text("1")),
        sa.Column("desired_state", sa.String(64), nullable=False),
        sa.Column("register_status", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("register_error", sa.Text, nullable=True),
        sa.Column("restarts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("last_exit", sa.Text, nullable=True),
        sa.Column("created_at", _Moment, nullable=False),
        sa.Column("updated_at", _Moment, nullable=False),
        sa.PrimaryKeyConstraint("node", "plugin_id"),
        if_not_exists=True,
        **_OPTIONS,
    )
    _create_index("idx_register_status", "t_plugin", "register_status")
    op.create_table(
        "t_audit",
        sa.Column("id", _RowNumber, autoincrement=True, nullable=False),
        sa.Column("entry", sa.String(32), nullable=False),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("happened_at", _Moment, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("action", sa.String(255), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("result", sa.String(255), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("entry", name="uq_audit_entry"),
        if_not_exists=True,
        **_OPTIONS,
    )
    _create_index("idx_audit_target", "t_audit", "target")


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("t_audit", if_exists=True)
    op.drop_table("t_plugin", if_exists=True)


def _create_index(name: str, table: str, column: str) -> None:
    # MySQL has no CREATE INDEX IF NOT EXISTS.
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, [column])
