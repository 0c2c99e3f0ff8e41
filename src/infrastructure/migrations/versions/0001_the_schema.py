"""The schema: tables and a view (``0001_tables.sql``), and functions that run as their owner.

The record of operations is in ``0001_operations.sql``, decisions about dead letters in
``0001_dead_letters.sql``.

Revisions are numbered: a service compares its own number with the database's. Migrations only add,
so that the previous release keeps working during a deploy. A revision that needs an index on an
existing table lists it in ``INDEXES``, as a ``ConcurrentIndex``.
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

TABLES = Path(__file__).with_name("0001_tables.sql").read_text()
OPERATIONS = Path(__file__).with_name("0001_operations.sql").read_text()
DEAD_LETTERS = Path(__file__).with_name("0001_dead_letters.sql").read_text()

# What a role without INSERT on events may record: these events, by their source.
WEBHOOK_EVENTS = (
    "kratos_identity.updated",
    "kratos_identity.hinted",
    "kratos_webhook.template_failed",
)
ERASE_EVENTS = ("identity.deleted",)
# What Kratos' Admin API answered, to a reconciliation or to who asked about one identity.
ANSWER_EVENTS = ("kratos_identity.updated", "kratos_identity.gone")
# Not erased before they are consumed, whatever names a caller gives.
IMPERSONAL_EVENTS = (
    "identity.deleted",
    "identity.deletion_requested",
    "kratos_identity.gone",
    "kratos_identity.hinted",
)


def array(words: tuple[str, ...]) -> str:
    """An array of text as an SQL literal."""
    return "'{" + ",".join(words) + "}'::text[]"


# For applications, in transactions of their own.
APPLICATION = """
-- For the functions below alone.
CREATE FUNCTION kratos_sync.record_for_application(
    event_name text, identity_id uuid, payload json
) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now timestamptz DEFAULT clock_timestamp();
    milliseconds bigint DEFAULT floor(extract(epoch FROM now) * 1000);
    random bytea DEFAULT uuid_send(gen_random_uuid());
    -- A UUIDv7: its version is in the high bits of the seventh byte.
    event_id uuid DEFAULT encode(
        set_byte(overlay(random PLACING substring(int8send(milliseconds) FROM 3) FROM 1), 6,
                 get_byte(random, 6) & 15 | 112), 'hex');
    -- The caller's trace context, if it has set one that is well-formed: a W3C traceparent.
    traceparent text DEFAULT substring(
        current_setting('kratos_sync.traceparent', true)
        FROM '^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$');
BEGIN
    IF coalesce(identity_id, '00000000-0000-0000-0000-000000000000')
       = '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'an identity''s id is neither NULL nor all zeros'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO kratos_sync.events
           (id, name, subject, occurred_at, payload, source, trace_context)
    VALUES (event_id, event_name, identity_id, now, payload, 'application', traceparent);
    INSERT INTO kratos_sync.deliveries (event_id, consumer, subject, owed_at, due_at, ordered)
    SELECT event_id, consumer, identity_id, now, now, ordered FROM kratos_sync.subscriptions
    WHERE event = event_name;
    PERFORM pg_notify('kratos_sync_due', '');
    RETURN event_id;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.record_for_application FROM PUBLIC;

-- Runs with the rights of whoever migrates: an application needs no right on the tables.
CREATE FUNCTION kratos_sync.identity_changed(identity_id uuid) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN kratos_sync.record_for_application(
        'kratos_identity.hinted', identity_id, json_build_object('identity_id', identity_id));
END $$;
REVOKE ALL ON FUNCTION kratos_sync.identity_changed(uuid) FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.identity_changed(uuid) IS 'To be called after changing an identity in Kratos: once the transaction commits, it is fetched from the Admin API';

CREATE FUNCTION kratos_sync.delete_identity(
    identity_id uuid,
    requested_by text DEFAULT NULL,
    erase boolean DEFAULT false
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN kratos_sync.record_for_application(
        'identity.deletion_requested', identity_id,
        json_build_object('identity_id', identity_id, 'by', requested_by, 'erase', erase));
END $$;
REVOKE ALL ON FUNCTION kratos_sync.delete_identity FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.delete_identity IS 'Request the deletion of an identity, here first and in Kratos last, once the transaction commits';
"""

# They run with the rights of whoever migrates. Deliveries are recorded for new events only, so that
# a caller cannot add one to an event that was there before.
RECORD = """
CREATE FUNCTION kratos_sync.record_{kind}_events(
    ids uuid[], names text[], subjects uuid[], times timestamptz[], payloads json[],
    sources text[], dedupe_keys text[], trace_contexts text[], hooks text[], footprints integer[]
) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (names <@ {names} AND sources <@ {sources}
        AND NOT EXISTS (SELECT FROM unnest(dedupe_keys) AS key
                        WHERE split_part(key, ':', 1) <> ALL({sources}))) IS NOT TRUE
       AND NOT has_table_privilege(session_user, 'kratos_sync.events', 'INSERT') THEN
        RAISE EXCEPTION 'role % may record % of sources % only',
            session_user, {names}, {sources} USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- The commit is durable also behind a pooler, which drops what its client set for the session.
    PERFORM set_config('synchronous_commit', 'on', true);
    RETURN QUERY
    WITH event AS (
        INSERT INTO kratos_sync.events
               (id, name, subject, occurred_at, payload, source, dedupe_key, trace_context,
                hook, footprint)
        SELECT * FROM unnest(ids, names, subjects, times, payloads,
                             sources, dedupe_keys, trace_contexts, hooks, footprints)
        ON CONFLICT DO NOTHING
        RETURNING events.id, events.name, events.subject, events.footprint
    ), delivery AS (
        INSERT INTO kratos_sync.deliveries
               (event_id, subject, footprint, consumer, ordered, owed_at, due_at)
        SELECT event.id, event.subject, event.footprint, subscription.consumer,
               subscription.ordered, clock.at, clock.at
        FROM (SELECT clock_timestamp() AS at) clock CROSS JOIN event
             JOIN kratos_sync.subscriptions subscription ON subscription.event = event.name
    )
    SELECT event.id FROM event;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.record_{kind}_events FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.record_{kind}_events IS 'Record events with their deliveries; returns the ids of those that are new';
"""

# Whoever calls them: what has a pending delivery or a dead letter stays, and so does the last day.
# Only a statement that begins after the lock was taken sees all deliveries.
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
                       WHERE d.event_id = oldest.id OFFSET 0) AS outstanding
        FROM oldest
    )
    SELECT count(*), array_agg(id) FILTER (WHERE NOT outstanding),
           (array_agg(recorded_at ORDER BY recorded_at DESC, id DESC))[1],
           (array_agg(id ORDER BY recorded_at DESC, id DESC))[1]
    INTO looked_at, found, after, after_id FROM seen;
    removed := coalesce(cardinality(found), 0);
    IF remove THEN
        DELETE FROM kratos_sync.events WHERE id = ANY(found);
    END IF;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.purge_events FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.purge_events IS 'A step of a purge: remove, or count, those of the next events that are old and have no delivery';

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
                       WHERE d.event_id = oldest.event_id OFFSET 0) AS outstanding
        FROM oldest
    )
    SELECT count(*), array_agg(id) FILTER (WHERE old AND NOT outstanding), max(id),
           coalesce(bool_or(old), false), coalesce(bool_or(young), false)
    INTO looked_at, found, after, any_old, any_young FROM seen;
    -- Times are by workers' clocks: one in the future says nothing about the rows after it.
    IF any_young AND NOT any_old THEN
        found := NULL;
    END IF;
    removed := coalesce(cardinality(found), 0);
    IF remove THEN
        DELETE FROM kratos_sync.attempts WHERE id = ANY(found);
    END IF;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.purge_attempts FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.purge_attempts IS 'The same for attempts';
"""  # noqa: S608  # every part is ours

# Only for identities in `erasures`, whoever calls it. What a worker has locked is left for later.
ERASE_FUNCTION = """
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
                         AND name <> ALL(impersonal || @IMPERSONAL@) AND id > after)
                   SELECT id FROM theirs ORDER BY id LIMIT most);
    last := found[cardinality(found)];
    locked := ARRAY(SELECT event_id FROM kratos_sync.deliveries WHERE event_id = ANY(found)
                    ORDER BY event_id, consumer FOR UPDATE SKIP LOCKED);
    busy := ARRAY(SELECT event_id FROM kratos_sync.deliveries WHERE event_id = ANY(found)
                  EXCEPT ALL SELECT unnest(locked));
    free := ARRAY(SELECT unnest(found) EXCEPT SELECT unnest(busy));
    held := cardinality(found) - cardinality(free);
    WITH settled_deliveries AS (
        DELETE FROM kratos_sync.deliveries WHERE event_id = ANY(free)
        RETURNING event_id, consumer, attempts
    )
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT event_id, consumer, attempts, 'erased', clock_timestamp(), '0'
    FROM settled_deliveries;
    GET DIAGNOSTICS settled = ROW_COUNT;
    UPDATE kratos_sync.attempts SET error = NULL
    WHERE event_id = ANY(free) AND error IS NOT NULL;
    GET DIAGNOSTICS texts = ROW_COUNT;
    UPDATE kratos_sync.events
    SET payload = '{}', trace_context = NULL, dedupe_key = NULL, hook = NULL,
        erased_at = clock_timestamp()
    WHERE id = ANY(free);
    GET DIAGNOSTICS erased = ROW_COUNT;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.erase_events FROM PUBLIC;
""".replace("@IMPERSONAL@", array(IMPERSONAL_EVENTS))

# The texts of retries and discards, and of unknown events, have no personal data.
ERASE_TEXTS = """
CREATE FUNCTION kratos_sync.erase_texts(
    people uuid[], impersonal text[], OUT texts bigint, OUT held bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept uuid[];
    with_text bigint;
BEGIN
    people := ARRAY(SELECT identity_id FROM kratos_sync.erasures WHERE identity_id = ANY(people));
    UPDATE kratos_sync.events SET trace_context = NULL, hook = NULL
    WHERE subject = ANY(people) AND name = ANY(impersonal)
      AND (trace_context IS NOT NULL OR hook IS NOT NULL);
    kept := ARRAY(SELECT id FROM kratos_sync.events
                  WHERE subject = ANY(people) AND name = ANY(impersonal));
    UPDATE kratos_sync.attempts SET error = NULL
    WHERE event_id = ANY(kept) AND error IS NOT NULL
      AND outcome NOT IN ('retried', 'discarded');
    GET DIAGNOSTICS texts = ROW_COUNT;
    SELECT count(*) INTO with_text FROM kratos_sync.deliveries
    WHERE event_id = ANY(kept) AND substr(coalesce(last_error, 'x'), 1, 14) <> 'UnknownEvent: '
      AND coalesce(last_error, error_shape) IS NOT NULL;
    WITH unlocked AS (
        SELECT event_id, consumer FROM kratos_sync.deliveries
        WHERE event_id = ANY(kept) AND substr(coalesce(last_error, 'x'), 1, 14) <> 'UnknownEvent: '
          AND coalesce(last_error, error_shape) IS NOT NULL
        ORDER BY event_id, consumer FOR UPDATE SKIP LOCKED
    )
    UPDATE kratos_sync.deliveries d SET last_error = NULL, error_shape = NULL
    FROM unlocked WHERE d.event_id = unlocked.event_id AND d.consumer = unlocked.consumer;
    GET DIAGNOSTICS held = ROW_COUNT;
    texts := texts + held;
    held := with_text - held;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.erase_texts FROM PUBLIC;
"""


def upgrade() -> None:
    """Create everything."""
    for statements in (
        TABLES,
        APPLICATION,
        PURGES,
        ERASE_FUNCTION,
        ERASE_TEXTS,
        OPERATIONS,
        DEAD_LETTERS,
    ):
        op.execute(statements)
    for kind, names, sources in (
        ("webhook", WEBHOOK_EVENTS, ("webhook",)),
        ("erase", ERASE_EVENTS, ("erase",)),
        ("answer", ANSWER_EVENTS, ("reconcile", "sync")),
    ):
        op.execute(RECORD.format(kind=kind, names=array(names), sources=array(sources)))
