"""Which releases may run on the schema."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add it to the table that every role can read."""
    op.execute("""
        ALTER TABLE kratos_sync.alembic_version ADD COLUMN oldest_release text NOT NULL DEFAULT '0001';
        COMMENT ON COLUMN kratos_sync.alembic_version.oldest_release IS 'The newest revision of the oldest release that may run on this schema';
    """)
