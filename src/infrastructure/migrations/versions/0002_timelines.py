"""The table of timelines: the primaries that this database has been on."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create it."""
    op.execute("""
        CREATE TABLE kratos_sync.timelines (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            system_identifier text NOT NULL,
            timeline bigint NOT NULL,
            first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            begins_at pg_lsn,
            last_commit_at timestamptz,
            seen_before pg_lsn,
            UNIQUE (system_identifier, timeline)
        );
        COMMENT ON TABLE kratos_sync.timelines IS 'The timelines of PostgreSQL that this database has been on: a new one is a failover or a restore';
        COMMENT ON COLUMN kratos_sync.timelines.begins_at IS 'The end of what it has of the timeline before, if the server still knew';
        COMMENT ON COLUMN kratos_sync.timelines.last_commit_at IS 'When the last transaction of the timeline before committed, likewise';
        COMMENT ON COLUMN kratos_sync.timelines.seen_before IS 'The furthest position on the timeline before that a relay saw: what lies between begins_at and this is missing';
    """)
