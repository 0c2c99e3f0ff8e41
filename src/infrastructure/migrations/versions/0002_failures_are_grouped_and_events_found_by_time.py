"""What failed is grouped by its kind, and events are found by when they were recorded."""

from alembic import op

revision = "0002"
down_revision = "0001"

CHANGES = """
ALTER TABLE kratos_sync.deliveries
    ADD COLUMN error_type text,
    ADD COLUMN error_shape text;
COMMENT ON COLUMN kratos_sync.deliveries.error_type IS 'The exception''s type in last_error; NULL from before revision 0002';
COMMENT ON COLUMN kratos_sync.deliveries.error_shape IS 'Its message, without what differs from one event to the next';

-- Rows that a purge removes leave room that later ones take: by page, times would soon be mixed.
DROP INDEX kratos_sync.events_recorded_at;
CREATE INDEX events_recorded_at ON kratos_sync.events (recorded_at, id);
"""


def upgrade() -> None:
    """Add the columns, and change the index."""
    op.execute(CHANGES)
