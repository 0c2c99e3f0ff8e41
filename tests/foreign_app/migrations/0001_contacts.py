"""The table of contacts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "contacts",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("latest_event", sa.Uuid, nullable=False),
        sa.Column("news", sa.Integer, nullable=False, server_default="0"),
    )
