CREATE TABLE kratos_sync.kratos_identities (
    id uuid PRIMARY KEY,
    external_id text,
    schema_id text,
    schema_url text,
    state text,
    state_changed_at timestamptz,
    traits jsonb,
    verifiable_addresses jsonb,
    recovery_addresses jsonb,
    metadata_public jsonb,
    metadata_admin jsonb,
    organization_id uuid,
    region text,
    unknown jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz,
    updated_at timestamptz,
    deleted_at timestamptz,
    synced_at timestamptz NOT NULL,
    version integer NOT NULL,
    part_recency jsonb NOT NULL DEFAULT '{}',
    exact_at timestamptz,
    exact_numbers jsonb,
    seen_alive_at timestamptz,
    forgotten_at timestamptz,
    footprint integer
) WITH (fillfactor = 80);
CREATE INDEX kratos_identities_deleted ON kratos_sync.kratos_identities (deleted_at)
    WHERE deleted_at IS NOT NULL;
COMMENT ON TABLE kratos_sync.kratos_identities IS 'Our copy of what Kratos knows of its identities';
COMMENT ON COLUMN kratos_sync.kratos_identities.metadata_admin IS 'Only the Admin API tells it: NULL until then';
COMMENT ON COLUMN kratos_sync.kratos_identities.deleted_at IS 'Set on a tombstone: personal data is gone';
COMMENT ON COLUMN kratos_sync.kratos_identities.part_recency IS 'Parts older than updated_at, with their own time';
COMMENT ON COLUMN kratos_sync.kratos_identities.exact_numbers IS 'Large integers as the Admin API gave them: webhooks round them';
COMMENT ON COLUMN kratos_sync.kratos_identities.forgotten_at IS 'Set where somebody had the person deleted or erased here: nothing that Kratos shows undoes that';
COMMENT ON COLUMN kratos_sync.kratos_identities.footprint IS 'Bytes of memory that reading the row takes, an estimate; NULL where nobody made it';

CREATE VIEW kratos_sync.identity_addresses AS
SELECT i.id AS identity_id,
       a ->> 'via' AS via,
       a ->> 'value' AS value,
       (a ->> 'verified')::boolean AS verified,
       (a ->> 'verified_at')::timestamptz AS verified_at
FROM kratos_sync.kratos_identities i
CROSS JOIN LATERAL jsonb_array_elements(i.verifiable_addresses) a
WHERE i.deleted_at IS NULL;

CREATE TABLE kratos_sync.events (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    subject uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    payload json NOT NULL,
    source text NOT NULL,
    dedupe_key text,
    trace_context text,
    erased_at timestamptz,
    footprint integer
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX events_dedupe_key ON kratos_sync.events (dedupe_key)
    WHERE dedupe_key IS NOT NULL;
CREATE INDEX events_subject_recorded_at ON kratos_sync.events (subject, recorded_at);
-- Rows that a purge removes leave room that later ones take: in a BRIN index, times would soon be mixed.
CREATE INDEX events_recorded_at ON kratos_sync.events (recorded_at, id);
COMMENT ON TABLE kratos_sync.events IS 'Every event, until a purge removes it: rows are never changed, but for people who are erased';
-- json, not jsonb: what was sent is kept to the letter, large integers and NUL escapes included.
COMMENT ON COLUMN kratos_sync.events.payload IS 'As sent';
COMMENT ON COLUMN kratos_sync.events.erased_at IS 'Set where the payload was erased with the person''s data: it is an empty object then';
COMMENT ON COLUMN kratos_sync.events.footprint IS 'Bytes of memory that reading the payload takes, an estimate; NULL where nobody made it';

CREATE TABLE kratos_sync.deliveries (
    event_id uuid NOT NULL,
    consumer text NOT NULL,
    subject uuid NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    owed_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now(),
    leased boolean NOT NULL DEFAULT false,
    last_error text,
    failed_at timestamptz,
    error_type text,
    error_shape text,
    footprint integer,
    PRIMARY KEY (event_id, consumer)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX deliveries_due ON kratos_sync.deliveries (consumer, due_at)
    WHERE failed_at IS NULL AND NOT leased;
CREATE INDEX deliveries_leased ON kratos_sync.deliveries (consumer, due_at)
    WHERE failed_at IS NULL AND leased;
CREATE INDEX deliveries_failed ON kratos_sync.deliveries (consumer, failed_at)
    WHERE failed_at IS NOT NULL;
-- Of few rows: large deliveries are claimed by their bytes.
CREATE INDEX deliveries_large ON kratos_sync.deliveries (consumer, leased, due_at)
    WHERE failed_at IS NULL AND footprint > 65536;
-- Due, whatever the clock said that wrote them.
CREATE INDEX deliveries_unattempted ON kratos_sync.deliveries (consumer, due_at)
    WHERE failed_at IS NULL AND NOT leased AND attempts = 0 AND error_type IS NULL;
COMMENT ON TABLE kratos_sync.deliveries IS 'What is still owed to a consumer; a row goes away with the consumer''s own commit';
COMMENT ON COLUMN kratos_sync.deliveries.subject IS 'As in events: what concerns one identity is dispatched together';
COMMENT ON COLUMN kratos_sync.deliveries.owed_at IS 'Since when: what lag is measured from';
COMMENT ON COLUMN kratos_sync.deliveries.leased IS 'Dispatched to the broker and not yet heard of';
COMMENT ON COLUMN kratos_sync.deliveries.failed_at IS 'Set on a dead letter';
COMMENT ON COLUMN kratos_sync.deliveries.error_type IS 'The exception''s type in last_error; NULL from before revision 0002';
COMMENT ON COLUMN kratos_sync.deliveries.error_shape IS 'Its message, without what differs from one event to the next';
COMMENT ON COLUMN kratos_sync.deliveries.footprint IS 'The event''s, or with what is held of its subject where that proved to be much';

CREATE TABLE kratos_sync.attempts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    consumer text NOT NULL,
    number integer NOT NULL,
    outcome text NOT NULL,
    started_at timestamptz NOT NULL,
    duration interval NOT NULL,
    error text
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX attempts_event ON kratos_sync.attempts (event_id);
COMMENT ON TABLE kratos_sync.attempts IS 'Every attempt of every delivery, until a purge removes it: rows are never changed, but for people who are erased';

CREATE TABLE kratos_sync.registrations_per_day (
    day date PRIMARY KEY,
    registrations bigint NOT NULL
);
COMMENT ON TABLE kratos_sync.registrations_per_day IS 'Kept by the consumer CountRegistrations';

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

CREATE TABLE kratos_sync.hooks_heard (
    label text PRIMARY KEY,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    calls bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE kratos_sync.hooks_heard IS 'When each hook of Kratos was last heard, by its header X-Kratos-Hook; without one the label is empty';

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

CREATE TABLE kratos_sync.deployment (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO kratos_sync.deployment DEFAULT VALUES;
COMMENT ON TABLE kratos_sync.deployment IS
    'One row: what the queues of this deployment are named by at the broker';
