"""What each role may do goes through functions, and what was never attempted has an index."""

from alembic import op

from kratos_sync.infrastructure.migrations import ConcurrentIndex

revision = "0010"
down_revision = "0008"

INDEXES = (
    # Of few rows: large deliveries are claimed by their bytes.
    ConcurrentIndex(
        "deliveries_large",
        "deliveries (consumer, leased, due_at) WHERE failed_at IS NULL AND footprint > 65536",
    ),
    # Due, whatever the clock said that wrote them.
    ConcurrentIndex(
        "deliveries_unattempted",
        "deliveries (consumer, due_at)"
        " WHERE failed_at IS NULL AND NOT leased AND attempts = 0 AND error_type IS NULL",
    ),
)

# What a role without INSERT on events may record: the events' names by their source, and the
# consumers of other events, which no such delivery may be for.
WEBHOOK_EVENTS = (
    "kratos_identity.updated",
    "kratos_identity.hinted",
    "kratos_webhook.template_failed",
)
ERASE_EVENTS = ("identity.deleted",)
CONSUMERS_OF_OTHER_EVENTS = (
    "CountRegistrations",
    "DeleteFromKratos",
    "DeleteKratosIdentity",
    "ForgetIdentity",
)
IMPERSONAL_EVENTS = (
    "identity.deleted",
    "identity.deletion_requested",
    "kratos_identity.gone",
    "kratos_identity.hinted",
)


def array(words: tuple[str, ...]) -> str:
    """An array of text as an SQL literal."""
    return "'{" + ",".join(words) + "}'::text[]"


# Both run with the rights of whoever migrates. An event is recorded with its deliveries, so that
# their callers can owe nothing of an event that was there before.
RECORD = """
CREATE FUNCTION kratos_sync.record_{source}_events(
    ids uuid[], names text[], subjects uuid[], times timestamptz[], payloads json[],
    sources text[], dedupe_keys text[], trace_contexts text[], footprints integer[],
    subscribed_names text[], subscribed_consumers text[]
) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (names <@ {names} AND sources <@ '{{{source}}}'::text[]
        AND NOT subscribed_consumers && {others}
        AND NOT EXISTS (SELECT FROM unnest(dedupe_keys) AS key
                        WHERE NOT starts_with(key, '{source}:'))) IS NOT TRUE
       AND NOT has_table_privilege(session_user, 'kratos_sync.events', 'INSERT') THEN
        RAISE EXCEPTION 'role % may record % of source {source} only, for their own consumers',
            session_user, {names} USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- The commit is durable also behind a pooler, which drops what its client set for the session.
    PERFORM set_config('synchronous_commit', 'on', true);
    RETURN QUERY
    WITH event AS (
        INSERT INTO kratos_sync.events
               (id, name, subject, occurred_at, payload, source, dedupe_key, trace_context,
                footprint)
        SELECT * FROM unnest(ids, names, subjects, times, payloads,
                             sources, dedupe_keys, trace_contexts, footprints)
        ON CONFLICT DO NOTHING
        RETURNING events.id, events.name, events.subject, events.footprint
    ), owed AS (
        INSERT INTO kratos_sync.deliveries (event_id, subject, footprint, consumer, owed_at, due_at)
        SELECT event.id, event.subject, event.footprint, subscription.consumer, clock.at, clock.at
        FROM (SELECT clock_timestamp() AS at) clock CROSS JOIN event
             JOIN unnest(subscribed_names, subscribed_consumers) AS subscription (name, consumer)
             ON subscription.name = event.name
    )
    SELECT event.id FROM event;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.record_{source}_events FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.record_{source}_events IS 'Record events and what is owed of them, and give the ids of those that are new';
"""

# Nothing goes of which something is outstanding, whoever calls them, and nothing of the last day.
# Only a statement that begins after the lock was taken sees all that is owed.
PURGE_BEGIN = """
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a purge needs the isolation level read committed'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(5720684118);
    before := least(before, clock_timestamp() - interval '1 day');
"""
PURGES = f"""
CREATE FUNCTION kratos_sync.purge_events(
    before timestamptz, INOUT after timestamptz, INOUT after_id uuid, most integer,
    remove boolean, OUT looked_at bigint, OUT removed bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found uuid[];
BEGIN
    {PURGE_BEGIN}
    -- OFFSET 0: looked up for each row; else the planner may read all deliveries at every step.
    WITH oldest AS MATERIALIZED (
        SELECT recorded_at, id FROM kratos_sync.events
        WHERE recorded_at < before AND (recorded_at, id) > (after, after_id)
        ORDER BY recorded_at, id
        LIMIT most
    ), seen AS MATERIALIZED (
        SELECT recorded_at, id,
               EXISTS (SELECT FROM kratos_sync.deliveries d
                       WHERE d.event_id = oldest.id OFFSET 0) AS owed
        FROM oldest
    )
    SELECT count(*), array_agg(id) FILTER (WHERE NOT owed),
           (array_agg(recorded_at ORDER BY recorded_at DESC, id DESC))[1],
           (array_agg(id ORDER BY recorded_at DESC, id DESC))[1]
    INTO looked_at, found, after, after_id FROM seen;
    removed := coalesce(cardinality(found), 0);
    IF remove THEN
        DELETE FROM kratos_sync.events WHERE id = ANY(found);
    END IF;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.purge_events FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.purge_events IS 'A step of a purge: remove, or count, those of the next events that are old and of which nothing is outstanding';

CREATE FUNCTION kratos_sync.purge_attempts(
    before timestamptz, INOUT after bigint, most integer, remove boolean,
    OUT looked_at bigint, OUT removed bigint, OUT any_old boolean, OUT any_young boolean
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found bigint[];
BEGIN
    {PURGE_BEGIN}
    WITH oldest AS MATERIALIZED (
        SELECT id, event_id, started_at FROM kratos_sync.attempts
        WHERE id > after
        ORDER BY id
        LIMIT most
    ), seen AS MATERIALIZED (
        SELECT id, started_at < before AS old,
               started_at BETWEEN before AND now() + interval '1 day' AS young,
               EXISTS (SELECT FROM kratos_sync.deliveries d
                       WHERE d.event_id = oldest.event_id OFFSET 0) AS owed
        FROM oldest
    )
    SELECT count(*), array_agg(id) FILTER (WHERE old AND NOT owed), max(id),
           coalesce(bool_or(old), false), coalesce(bool_or(young), false)
    INTO looked_at, found, after, any_old, any_young FROM seen;
    -- Times are by workers' clocks: those yet to come say nothing of what comes after them.
    IF any_young AND NOT any_old THEN
        found := NULL;
    END IF;
    removed := coalesce(cardinality(found), 0);
    IF remove THEN
        DELETE FROM kratos_sync.attempts WHERE id = ANY(found);
    END IF;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.purge_attempts FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.purge_attempts IS 'The same of attempts';
"""  # noqa: S608  # every part is ours

# A deletion that was asked for is not erased before it is done, whatever names a caller gives. What
# was granted stays granted.
ERASE = f"""
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('kratos_sync.erase_events'::regproc),
                    'name <> ALL(impersonal)',
                    $$name <> ALL(impersonal || {array(IMPERSONAL_EVENTS)})$$);
END $do$
"""


def upgrade() -> None:
    """Create the functions."""
    for source, names in (("webhook", WEBHOOK_EVENTS), ("erase", ERASE_EVENTS)):
        op.execute(
            RECORD.format(
                source=source, names=array(names), others=array(CONSUMERS_OF_OTHER_EVENTS)
            )
        )
    op.execute(PURGES)
    op.execute(ERASE)
