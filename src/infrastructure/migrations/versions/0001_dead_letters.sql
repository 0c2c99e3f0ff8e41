-- What is decided about dead letters. Whoever calls these functions: only a dead letter is changed,
-- and only one that had failed by then, so that none is decided on unseen; what somebody else has
-- locked is left for later. Each returns how many it changed, and logs them.

CREATE FUNCTION kratos_sync.retry_dead_letters(
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
            due_at = clock_timestamp(), leased = false
        FROM picked WHERE d.ctid = picked.ctid
        RETURNING d.event_id, picked.attempts
    )
    INSERT INTO kratos_sync.attempts
           (event_id, consumer, number, outcome, started_at, duration, error)
    SELECT event_id, its_consumer, attempts, 'retried', now(), '0', said FROM retried;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.retry_dead_letters FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.retry_dead_letters IS 'Make dead letters of one consumer pending again';

CREATE FUNCTION kratos_sync.discard_dead_letters(
    its_consumer text, event_ids uuid[], failed_by timestamptz, said text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed bigint;
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT d.ctid FROM unnest(event_ids) AS seen (id) CROSS JOIN LATERAL (
            SELECT ctid FROM kratos_sync.deliveries
            WHERE event_id = seen.id AND consumer = its_consumer AND failed_at <= failed_by
            FOR UPDATE SKIP LOCKED
        ) d
    ), discarded AS (
        DELETE FROM kratos_sync.deliveries WHERE ctid = ANY(ARRAY(SELECT ctid FROM picked))
        RETURNING event_id, attempts
    )
    INSERT INTO kratos_sync.attempts
           (event_id, consumer, number, outcome, started_at, duration, error)
    SELECT event_id, its_consumer, attempts, 'discarded', now(), '0', said FROM discarded;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.discard_dead_letters FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.discard_dead_letters IS 'Remove dead letters of one consumer for good';
