"""People whom somebody asked us to forget, and functions that have them deleted and erased."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = """
ALTER TABLE kratos_sync.kratos_identities ADD COLUMN forgotten_at timestamptz;
COMMENT ON COLUMN kratos_sync.kratos_identities.forgotten_at IS 'Set where somebody had the person deleted or erased here: nothing that Kratos shows undoes that';
ALTER TABLE kratos_sync.events ADD COLUMN erased_at timestamptz;
COMMENT ON COLUMN kratos_sync.events.erased_at IS 'Set where the payload was erased with the person''s data: it is an empty object then';
COMMENT ON TABLE kratos_sync.events IS 'Every event, until a purge removes it: rows are never changed, but for people who are erased';
COMMENT ON TABLE kratos_sync.attempts IS 'Every attempt of every delivery, until a purge removes it: rows are never changed, but for people who are erased';

CREATE TABLE kratos_sync.erasures (
    identity_id uuid PRIMARY KEY,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_at timestamptz,
    by text NOT NULL,
    reason text NOT NULL,
    look_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX erasures_look_at ON kratos_sync.erasures (look_at);
COMMENT ON TABLE kratos_sync.erasures IS 'Whose data was erased, for good: the fact is all that stays';
COMMENT ON COLUMN kratos_sync.erasures.erased_at IS 'When nothing was left for the first time; NULL until then';
COMMENT ON COLUMN kratos_sync.erasures.look_at IS 'When a relay looks next for what came after it';
"""

# Both run with the rights of whoever migrates: their callers need none on the tables.
DELETE_IDENTITY = """
CREATE FUNCTION kratos_sync.delete_identity(
    identity_id uuid,
    requested_by text DEFAULT NULL,
    erase boolean DEFAULT false,
    consumers text[] DEFAULT '{ForgetIdentity,DeleteFromKratos}'
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN kratos_sync.record_for_application(
        'identity.deletion_requested', identity_id,
        json_build_object('identity_id', identity_id, 'by', requested_by, 'erase', erase),
        consumers);
END $$;
REVOKE ALL ON FUNCTION kratos_sync.delete_identity FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.delete_identity IS 'Have an identity deleted, here first and in Kratos last, if the caller''s transaction commits';
"""

# Of the people in `erasures` alone, whoever calls it. What a worker holds is left for a later call.
ERASE_EVENTS = """
CREATE FUNCTION kratos_sync.erase_events(
    people uuid[], impersonal text[], after uuid, most integer,
    OUT last uuid, OUT erased bigint, OUT settled bigint, OUT held bigint, OUT texts bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found uuid[];
    locked uuid[];
    busy uuid[];
    free uuid[];
BEGIN
    people := ARRAY(SELECT identity_id FROM kratos_sync.erasures WHERE identity_id = ANY(people));
    -- Materialized: in the order of ids the planner might read everybody's events for a few.
    found := ARRAY(WITH theirs AS MATERIALIZED (
                       SELECT id FROM kratos_sync.events
                       WHERE subject = ANY(people) AND erased_at IS NULL
                         AND name <> ALL(impersonal) AND id > after)
                   SELECT id FROM theirs ORDER BY id LIMIT most);
    last := found[cardinality(found)];
    locked := ARRAY(SELECT event_id FROM kratos_sync.deliveries WHERE event_id = ANY(found)
                    ORDER BY event_id, consumer FOR UPDATE SKIP LOCKED);
    busy := ARRAY(SELECT event_id FROM kratos_sync.deliveries WHERE event_id = ANY(found)
                  EXCEPT ALL SELECT unnest(locked));
    free := ARRAY(SELECT unnest(found) EXCEPT SELECT unnest(busy));
    held := cardinality(found) - cardinality(free);
    WITH gone AS (
        DELETE FROM kratos_sync.deliveries WHERE event_id = ANY(free)
        RETURNING event_id, consumer, attempts
    )
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT event_id, consumer, attempts, 'erased', clock_timestamp(), '0' FROM gone;
    GET DIAGNOSTICS settled = ROW_COUNT;
    UPDATE kratos_sync.attempts SET error = NULL
    WHERE event_id = ANY(free) AND error IS NOT NULL;
    GET DIAGNOSTICS texts = ROW_COUNT;
    UPDATE kratos_sync.events
    SET payload = '{}', trace_context = NULL, dedupe_key = NULL, erased_at = clock_timestamp()
    WHERE id = ANY(free);
    GET DIAGNOSTICS erased = ROW_COUNT;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.erase_events FROM PUBLIC;
"""

# An operator's decision quotes nobody; and what a release does not know is found by its text.
ERASE_TEXTS = """
CREATE FUNCTION kratos_sync.erase_texts(
    people uuid[], impersonal text[], OUT texts bigint, OUT held bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept uuid[];
    telling bigint;
BEGIN
    people := ARRAY(SELECT identity_id FROM kratos_sync.erasures WHERE identity_id = ANY(people));
    UPDATE kratos_sync.events SET trace_context = NULL
    WHERE subject = ANY(people) AND name = ANY(impersonal) AND trace_context IS NOT NULL;
    kept := ARRAY(SELECT id FROM kratos_sync.events
                  WHERE subject = ANY(people) AND name = ANY(impersonal));
    UPDATE kratos_sync.attempts SET error = NULL
    WHERE event_id = ANY(kept) AND error IS NOT NULL
      AND outcome NOT IN ('retried', 'discarded');
    GET DIAGNOSTICS texts = ROW_COUNT;
    SELECT count(*) INTO telling FROM kratos_sync.deliveries
    WHERE event_id = ANY(kept) AND substr(coalesce(last_error, 'x'), 1, 14) <> 'UnknownEvent: '
      AND coalesce(last_error, error_shape) IS NOT NULL;
    WITH told AS (
        SELECT event_id, consumer FROM kratos_sync.deliveries
        WHERE event_id = ANY(kept) AND substr(coalesce(last_error, 'x'), 1, 14) <> 'UnknownEvent: '
          AND coalesce(last_error, error_shape) IS NOT NULL
        ORDER BY event_id, consumer FOR UPDATE SKIP LOCKED
    )
    UPDATE kratos_sync.deliveries d SET last_error = NULL, error_shape = NULL
    FROM told WHERE d.event_id = told.event_id AND d.consumer = told.consumer;
    GET DIAGNOSTICS held = ROW_COUNT;
    texts := texts + held;
    held := telling - held;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.erase_texts FROM PUBLIC;
"""


def upgrade() -> None:
    """Add the columns, the table and the functions."""
    for statements in (TABLES, DELETE_IDENTITY, ERASE_EVENTS, ERASE_TEXTS):
        op.execute(statements)
