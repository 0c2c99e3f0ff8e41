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
CREATE INDEX kratos_identities_external_id ON kratos_sync.kratos_identities (external_id)
    WHERE external_id IS NOT NULL;
CREATE INDEX kratos_identities_addresses ON kratos_sync.kratos_identities USING gin (
    jsonb_path_query_array(
        coalesce(verifiable_addresses, '[]') || coalesce(recovery_addresses, '[]'), '$[*].value'
    )
);
COMMENT ON TABLE kratos_sync.kratos_identities IS 'Our copy of what Kratos knows of its identities';
COMMENT ON COLUMN kratos_sync.kratos_identities.metadata_admin IS 'Known from the Admin API only: NULL until then';
COMMENT ON COLUMN kratos_sync.kratos_identities.deleted_at IS 'Set on a tombstone, which has no personal data';
COMMENT ON COLUMN kratos_sync.kratos_identities.part_recency IS 'The times of parts that are older than updated_at';
COMMENT ON COLUMN kratos_sync.kratos_identities.exact_numbers IS 'Large integers as the Admin API sent them; webhooks round them';
COMMENT ON COLUMN kratos_sync.kratos_identities.forgotten_at IS 'Set if the deletion or erasure was requested here: no answer of Kratos revives the identity';
COMMENT ON COLUMN kratos_sync.kratos_identities.footprint IS 'Bytes of memory that reading the row takes, an estimate; NULL if unknown';

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
    hook text,
    erased_at timestamptz,
    footprint integer
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX events_dedupe_key ON kratos_sync.events (dedupe_key)
    WHERE dedupe_key IS NOT NULL;
CREATE INDEX events_subject_recorded_at ON kratos_sync.events (subject, recorded_at);
-- Not BRIN: later rows fill the room that a purge leaves, so that times would be mixed.
CREATE INDEX events_recorded_at ON kratos_sync.events (recorded_at, id);
COMMENT ON TABLE kratos_sync.events IS 'Every event until a purge removes it; insert-only, except for erasures';
-- json, not jsonb: it keeps the text as sent, with large integers and NUL escapes.
COMMENT ON COLUMN kratos_sync.events.hook IS 'The label of Kratos'' hook that called, by its header X-Kratos-Hook';
COMMENT ON COLUMN kratos_sync.events.payload IS 'As sent';
COMMENT ON COLUMN kratos_sync.events.erased_at IS 'When an erasure emptied the payload';
COMMENT ON COLUMN kratos_sync.events.footprint IS 'Bytes of memory that reading the payload takes, an estimate; NULL if unknown';

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
    ordered boolean NOT NULL DEFAULT false,
    PRIMARY KEY (event_id, consumer)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX deliveries_due ON kratos_sync.deliveries (consumer, due_at)
    WHERE failed_at IS NULL AND NOT leased;
CREATE INDEX deliveries_leased ON kratos_sync.deliveries (consumer, due_at)
    WHERE failed_at IS NULL AND leased;
CREATE INDEX deliveries_failed ON kratos_sync.deliveries (consumer, failed_at)
    WHERE failed_at IS NOT NULL;
-- Groups of dead letters are counted in it.
CREATE INDEX deliveries_failures ON kratos_sync.deliveries
    (consumer, error_type, error_shape, failed_at) WHERE failed_at IS NOT NULL;
-- Of few rows: large deliveries are claimed by their bytes.
CREATE INDEX deliveries_large ON kratos_sync.deliveries (consumer, leased, due_at)
    WHERE failed_at IS NULL AND footprint > 65536;
-- Due, whatever the clock said that wrote them.
CREATE INDEX deliveries_unattempted ON kratos_sync.deliveries (consumer, due_at)
    WHERE failed_at IS NULL AND NOT leased AND attempts = 0 AND error_type IS NULL;
-- The deliveries about one identity, in their order: none but those of ordered consumers.
CREATE INDEX deliveries_ordered ON kratos_sync.deliveries (consumer, subject, owed_at, event_id)
    WHERE ordered;
COMMENT ON TABLE kratos_sync.deliveries IS 'Pending deliveries and dead letters; a row is deleted in the transaction of the consumer''s own writes';
COMMENT ON COLUMN kratos_sync.deliveries.subject IS 'As in events: deliveries about one identity are dispatched together';
COMMENT ON COLUMN kratos_sync.deliveries.owed_at IS 'When it was recorded; the lag is measured from it';
COMMENT ON COLUMN kratos_sync.deliveries.leased IS 'Leased by a relay until due_at';
COMMENT ON COLUMN kratos_sync.deliveries.failed_at IS 'Set on a dead letter';
COMMENT ON COLUMN kratos_sync.deliveries.error_type IS 'The exception''s type in last_error';
COMMENT ON COLUMN kratos_sync.deliveries.error_shape IS 'Its message without the parts that differ between events';
COMMENT ON COLUMN kratos_sync.deliveries.ordered IS 'Waits for earlier deliveries about the identity to the consumer';
COMMENT ON COLUMN kratos_sync.deliveries.footprint IS 'The event''s; with the identity''s row where that proved to be large';

CREATE TABLE kratos_sync.subscriptions (
    event text NOT NULL,
    consumer text NOT NULL,
    ordered boolean NOT NULL DEFAULT false,
    PRIMARY KEY (event, consumer)
);
COMMENT ON COLUMN kratos_sync.subscriptions.ordered IS 'Whether the consumer receives events of one identity one after another';
INSERT INTO kratos_sync.subscriptions (event, consumer) VALUES
    ('kratos_identity.updated', 'SyncKratosIdentity'),
    ('kratos_identity.gone', 'DeleteKratosIdentity'),
    ('kratos_identity.hinted', 'FetchKratosIdentity'),
    ('identity.registered', 'CountRegistrations'),
    ('identity.deletion_requested', 'ForgetIdentity'),
    ('identity.deletion_requested', 'DeleteFromKratos');
COMMENT ON TABLE kratos_sync.subscriptions IS 'An event is recorded with a delivery for each of its consumers';

CREATE TABLE kratos_sync.consumer_policies (
    consumer text PRIMARY KEY,
    paused_at timestamptz,
    paused_by text,
    pause_reason text,
    rate text,
    concurrency integer,
    tokens double precision NOT NULL DEFAULT 1,
    refilled_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE kratos_sync.consumer_policies IS 'What was decided of consumers at run time: pauses and limits';
COMMENT ON COLUMN kratos_sync.consumer_policies.tokens IS 'How many events its rate allowed at refilled_at';

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
COMMENT ON TABLE kratos_sync.attempts IS 'Every attempt until a purge removes it; insert-only, except for erasures';

CREATE TABLE kratos_sync.registrations_per_day (
    day date PRIMARY KEY,
    registrations bigint NOT NULL
);
COMMENT ON TABLE kratos_sync.registrations_per_day IS 'Written by the consumer CountRegistrations';

CREATE TABLE kratos_sync.purges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    events bigint NOT NULL DEFAULT 0,
    attempts bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE kratos_sync.purges IS 'The newest thousand purges, and how many rows each removed';
COMMENT ON COLUMN kratos_sync.purges.seen_at IS 'When its last step ended: shows a purge that was interrupted';

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
COMMENT ON TABLE kratos_sync.reconciliations IS 'The newest thousand comparisons with Kratos'' listing, and what each repaired';
COMMENT ON COLUMN kratos_sync.reconciliations.held IS 'Identities that were not deleted here when it began';
COMMENT ON COLUMN kratos_sync.reconciliations.outcome IS 'completed, or why no identity was deleted; NULL while it runs or was interrupted';
COMMENT ON COLUMN kratos_sync.reconciliations.page_token IS 'The next page, as Kratos names it';
COMMENT ON COLUMN kratos_sync.reconciliations.known IS 'Listed identities that have a row here';
COMMENT ON COLUMN kratos_sync.reconciliations.missing IS 'Listed identities without a row here';
COMMENT ON COLUMN kratos_sync.reconciliations.stale IS 'Listed identities that differ here';
COMMENT ON COLUMN kratos_sync.reconciliations.unseen IS 'Identities with a row here from before the run that are not listed';
COMMENT ON COLUMN kratos_sync.reconciliations.gone IS 'Unlisted identities that Kratos, asked one by one, does not have';
COMMENT ON COLUMN kratos_sync.reconciliations.fields IS 'The number of stale identities by field';
COMMENT ON COLUMN kratos_sync.reconciliations.unheard IS 'The number of missing and stale identities by missed webhook';
COMMENT ON COLUMN kratos_sync.reconciliations.unreadable IS 'Listed identities that could not be read';

CREATE TABLE kratos_sync.unseen_identities (
    reconciliation bigint NOT NULL,
    identity_id uuid NOT NULL,
    PRIMARY KEY (reconciliation, identity_id)
);
COMMENT ON TABLE kratos_sync.unseen_identities IS 'Unlisted identities that a reconciliation has not yet asked Kratos about';

CREATE TABLE kratos_sync.kratos_answers (
    identity_id uuid PRIMARY KEY,
    asked_at timestamptz NOT NULL
) WITH (fillfactor = 80);
COMMENT ON TABLE kratos_sync.kratos_answers IS 'When Kratos was last asked about an identity; a hint from before that is answered';

CREATE TABLE kratos_sync.hooks_heard (
    label text PRIMARY KEY,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    calls bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE kratos_sync.hooks_heard IS 'The calls of each hook by its header X-Kratos-Hook; the label is empty without one';

CREATE TABLE kratos_sync.erasures (
    identity_id uuid PRIMARY KEY,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_at timestamptz,
    by text NOT NULL,
    reason text NOT NULL,
    look_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX erasures_look_at ON kratos_sync.erasures (look_at);
COMMENT ON TABLE kratos_sync.erasures IS 'Erased identities; nothing else of them is kept';
COMMENT ON COLUMN kratos_sync.erasures.erased_at IS 'When everything was erased for the first time; NULL until then';
COMMENT ON COLUMN kratos_sync.erasures.look_at IS 'When a relay next erases what was recorded later';

CREATE TABLE kratos_sync.deployment (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO kratos_sync.deployment DEFAULT VALUES;
COMMENT ON TABLE kratos_sync.deployment IS
    'One row: names the queues of this deployment at the broker';
