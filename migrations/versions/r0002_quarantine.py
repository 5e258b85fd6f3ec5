"""Content of plugins that must not be started again, with the reason."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "0002"
down_revision = "0001"

_OPTIONS = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
_Moment = sa.DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Create the table, if an upgrade that was killed has not done so before."""
    op.create_table(
        "t_quarantine",
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("plugin_id", sa.String(255), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("released", sa.Boolean, nullable=False, server_default=sa.text("0")),
        sa.Column("happened_at", _Moment, nullable=False),
        sa.PrimaryKeyConstraint("node", "plugin_id", "digest"),
        if_not_exists=True,
        **_OPTIONS,
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("t_quarantine", if_exists=True)
