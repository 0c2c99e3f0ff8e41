"""What was learnt by asking Kratos: what reconciling found, and where an interrupted one goes on."""

from alembic import op

revision = "0003"
down_revision = "0002"

CHANGES = """
CREATE TABLE kratos_sync.reconciliations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    outcome text,
    held bigint NOT NULL,
    page_token text,
    last_id uuid,
    listed boolean NOT NULL DEFAULT false,
    pages bigint NOT NULL DEFAULT 0,
    identities bigint NOT NULL DEFAULT 0,
    known bigint NOT NULL DEFAULT 0,
    missing bigint NOT NULL DEFAULT 0,
    stale bigint NOT NULL DEFAULT 0,
    unseen bigint NOT NULL DEFAULT 0,
    gone bigint NOT NULL DEFAULT 0,
    fields jsonb NOT NULL DEFAULT '{}',
    unheard jsonb NOT NULL DEFAULT '{}',
    unreadable bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE kratos_sync.reconciliations IS 'Each comparison with Kratos'' listing, and what it had to repair: the newest thousand';
COMMENT ON COLUMN kratos_sync.reconciliations.held IS 'Identities alive here when it began';
COMMENT ON COLUMN kratos_sync.reconciliations.outcome IS 'completed, or why nobody was deleted; NULL while it runs or was interrupted';
COMMENT ON COLUMN kratos_sync.reconciliations.page_token IS 'Where it goes on: Kratos'' own word for its next page';
COMMENT ON COLUMN kratos_sync.reconciliations.known IS 'Of the identities listed: those that we held';
COMMENT ON COLUMN kratos_sync.reconciliations.missing IS 'Listed, and not here';
COMMENT ON COLUMN kratos_sync.reconciliations.stale IS 'Listed, and not the same here';
COMMENT ON COLUMN kratos_sync.reconciliations.unseen IS 'Here since before it began, and not listed';
COMMENT ON COLUMN kratos_sync.reconciliations.gone IS 'Of the unseen: those of which Kratos said, asked one by one, that it has none';
COMMENT ON COLUMN kratos_sync.reconciliations.fields IS 'How many of the stale differ in which field';
COMMENT ON COLUMN kratos_sync.reconciliations.unheard IS 'How many of the missing and stale want for which webhook';
COMMENT ON COLUMN kratos_sync.reconciliations.unreadable IS 'Listed, and not to be read';

CREATE TABLE kratos_sync.unseen_identities (
    reconciliation bigint NOT NULL,
    identity_id uuid NOT NULL,
    PRIMARY KEY (reconciliation, identity_id)
);
COMMENT ON TABLE kratos_sync.unseen_identities IS 'Whom a reconciliation still has to ask Kratos about';

CREATE TABLE kratos_sync.kratos_answers (
    identity_id uuid PRIMARY KEY,
    asked_at timestamptz NOT NULL
) WITH (fillfactor = 80);
COMMENT ON TABLE kratos_sync.kratos_answers IS 'When Kratos was last asked about an identity, by a hint or by a person: a hint from before is answered';

-- What an application says of an identity in a transaction of its own. For the functions below alone.
CREATE FUNCTION kratos_sync.record_for_application(
    event_name text, identity_id uuid, payload json, consumers text[]
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
BEGIN
    IF coalesce(identity_id, '00000000-0000-0000-0000-000000000000')
       = '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'an identity''s id is neither NULL nor all zeros'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)
    VALUES (event_id, event_name, identity_id, now, payload, 'application');
    INSERT INTO kratos_sync.deliveries (event_id, consumer, subject, owed_at, due_at)
    SELECT event_id, consumer, identity_id, now, now FROM unnest(consumers) AS consumer;
    PERFORM pg_notify('kratos_sync_due', '');
    RETURN event_id;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.record_for_application FROM PUBLIC;

-- Owned by whoever migrates, and with its rights: an application needs none on the ledger's tables.
CREATE FUNCTION kratos_sync.identity_changed(identity_id uuid) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN kratos_sync.record_for_application(
        'kratos_identity.hinted', identity_id, json_build_object('identity_id', identity_id),
        '{FetchKratosIdentity}');
END $$;
REVOKE ALL ON FUNCTION kratos_sync.identity_changed(uuid) FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.identity_changed(uuid) IS 'The caller has just changed this identity in Kratos: have it asked for, if the caller''s transaction commits';

CREATE TABLE kratos_sync.hooks_heard (
    label text PRIMARY KEY,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    calls bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE kratos_sync.hooks_heard IS 'When each hook of Kratos was last heard, by its header X-Kratos-Hook; without one the label is empty';
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(CHANGES)
