"""Events, deliveries and identities say how much memory they take to be consumed."""

from alembic import op

revision = "0006"
down_revision = "0004"

CHANGES = """
ALTER TABLE kratos_sync.events ADD COLUMN footprint integer;
COMMENT ON COLUMN kratos_sync.events.footprint IS 'Bytes of memory that reading the payload takes, an estimate; NULL where nobody made it';
ALTER TABLE kratos_sync.deliveries ADD COLUMN footprint integer;
COMMENT ON COLUMN kratos_sync.deliveries.footprint IS 'The event''s, or with what is held of its subject where that proved to be much';
ALTER TABLE kratos_sync.kratos_identities ADD COLUMN footprint integer;
COMMENT ON COLUMN kratos_sync.kratos_identities.footprint IS 'Bytes of memory that reading the row takes, an estimate; NULL where nobody made it';
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(CHANGES)
