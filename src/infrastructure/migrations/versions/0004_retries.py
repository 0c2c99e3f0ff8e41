"""How often a delivery was retried by an operator, kept with the delivery."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column, and count in it from now on."""
    op.execute("""
        ALTER TABLE kratos_sync.deliveries ADD COLUMN retries integer;
        COMMENT ON COLUMN kratos_sync.deliveries.retries IS 'How often an operator retried it as a dead letter; NULL for never';

        CREATE OR REPLACE FUNCTION kratos_sync.retry_dead_letters(
            its_consumer text, event_ids uuid[], failed_by timestamptz, said text
        ) RETURNS bigint
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        DECLARE
            changed bigint;
        BEGIN
            WITH picked AS MATERIALIZED (
                SELECT d.ctid, d.attempts FROM unnest(event_ids) AS seen (id) CROSS JOIN LATERAL (
                    SELECT ctid, attempts FROM kratos_sync.deliveries
                    WHERE event_id = seen.id AND consumer = its_consumer AND failed_at <= failed_by
                    FOR UPDATE SKIP LOCKED
                ) d
            ), retried AS (
                -- Pending from now on: the time as a dead letter is no lag.
                UPDATE kratos_sync.deliveries d
                SET failed_at = NULL, attempts = 0,
                    owed_at = CASE WHEN d.ordered THEN d.owed_at ELSE clock_timestamp() END,
                    due_at = clock_timestamp(), leased = false, retries = coalesce(d.retries, 0) + 1
                FROM picked WHERE d.ctid = picked.ctid
                RETURNING d.event_id, picked.attempts
            )
            INSERT INTO kratos_sync.attempts
                   (event_id, consumer, number, outcome, started_at, duration, error)
            SELECT event_id, its_consumer, attempts, 'retried', now(), '0', said FROM retried;
            GET DIAGNOSTICS changed = ROW_COUNT;
            RETURN changed;
        END $$;
    """)
