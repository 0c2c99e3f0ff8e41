"""What failed is grouped by its kind, and events are found by when they were recorded."""

from alembic import op

from kratos_sync.infrastructure.migrations import ConcurrentIndex

revision = "0002"
down_revision = "0001"

# Rows that a purge removes leave room that later ones take: by page, times would soon be mixed.
INDEXES = (ConcurrentIndex("events_recorded_at_id", "events (recorded_at, id)"),)

CHANGES = """
ALTER TABLE kratos_sync.deliveries
    ADD COLUMN error_type text,
    ADD COLUMN error_shape text;
COMMENT ON COLUMN kratos_sync.deliveries.error_type IS 'The exception''s type in last_error; NULL from before revision 0002';
COMMENT ON COLUMN kratos_sync.deliveries.error_shape IS 'Its message, without what differs from one event to the next';

DROP INDEX kratos_sync.events_recorded_at;
ALTER INDEX kratos_sync.events_recorded_at_id RENAME TO events_recorded_at;

CREATE TABLE kratos_sync.purges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    events bigint NOT NULL DEFAULT 0,
    attempts bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE kratos_sync.purges IS 'When rows that were old enough were removed, and how many: the newest thousand purges';
COMMENT ON COLUMN kratos_sync.purges.seen_at IS 'When its last step was made: one that went away without an end is told by it';
COMMENT ON TABLE kratos_sync.events IS 'Every event, until a purge removes it: rows are never changed';
COMMENT ON TABLE kratos_sync.attempts IS 'Every attempt of every delivery, until a purge removes it: rows are never changed';
-- Whoever removes a share of a large table, and often, should not leave a fifth of it empty.
ALTER TABLE kratos_sync.events SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE kratos_sync.attempts SET (autovacuum_vacuum_scale_factor = 0.05);
"""


def upgrade() -> None:
    """Add the columns, and change the index."""
    op.execute(CHANGES)
