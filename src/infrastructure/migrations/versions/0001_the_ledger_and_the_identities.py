"""The ledger and the identities.

Revisions are numbered: a service compares its own number with the database's. Migrations only add,
so that the release before this one goes on working while a deploy runs.
"""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
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
    seen_alive_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX kratos_identities_deleted ON kratos_sync.kratos_identities (deleted_at)
    WHERE deleted_at IS NOT NULL;
COMMENT ON TABLE kratos_sync.kratos_identities IS 'Our copy of what Kratos knows of its identities';
COMMENT ON COLUMN kratos_sync.kratos_identities.metadata_admin IS 'Only the Admin API tells it: NULL until then';
COMMENT ON COLUMN kratos_sync.kratos_identities.deleted_at IS 'Set on a tombstone: personal data is gone';
COMMENT ON COLUMN kratos_sync.kratos_identities.part_recency IS 'Parts older than updated_at, with their own time';
COMMENT ON COLUMN kratos_sync.kratos_identities.exact_numbers IS 'Large integers as the Admin API gave them: webhooks round them';

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
    trace_context text
);
CREATE UNIQUE INDEX events_dedupe_key ON kratos_sync.events (dedupe_key)
    WHERE dedupe_key IS NOT NULL;
CREATE INDEX events_subject ON kratos_sync.events (subject);
CREATE INDEX events_recorded_at ON kratos_sync.events USING brin (recorded_at);
COMMENT ON TABLE kratos_sync.events IS 'Every event, for good: rows are only inserted';
-- json, not jsonb: what was sent is kept to the letter, large integers and NUL escapes included.
COMMENT ON COLUMN kratos_sync.events.payload IS 'As sent';

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
    PRIMARY KEY (event_id, consumer)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX deliveries_due ON kratos_sync.deliveries (consumer, due_at)
    WHERE failed_at IS NULL AND NOT leased;
CREATE INDEX deliveries_leased ON kratos_sync.deliveries (consumer, due_at)
    WHERE failed_at IS NULL AND leased;
CREATE INDEX deliveries_failed ON kratos_sync.deliveries (consumer, failed_at)
    WHERE failed_at IS NOT NULL;
COMMENT ON TABLE kratos_sync.deliveries IS 'What is still owed to a consumer; a row goes away with the consumer''s own commit';
COMMENT ON COLUMN kratos_sync.deliveries.subject IS 'As in events: what concerns one identity is dispatched together';
COMMENT ON COLUMN kratos_sync.deliveries.owed_at IS 'Since when: what lag is measured from';
COMMENT ON COLUMN kratos_sync.deliveries.leased IS 'Dispatched to the broker and not yet heard of';
COMMENT ON COLUMN kratos_sync.deliveries.failed_at IS 'Set on a dead letter';

CREATE TABLE kratos_sync.attempts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    consumer text NOT NULL,
    number integer NOT NULL,
    outcome text NOT NULL,
    started_at timestamptz NOT NULL,
    duration interval NOT NULL,
    error text
);
CREATE INDEX attempts_event ON kratos_sync.attempts (event_id);
COMMENT ON TABLE kratos_sync.attempts IS 'Every attempt of every delivery: rows are only inserted';

CREATE TABLE kratos_sync.registrations_per_day (
    day date PRIMARY KEY,
    registrations bigint NOT NULL
);
COMMENT ON TABLE kratos_sync.registrations_per_day IS 'Kept by the consumer CountRegistrations';
"""


def upgrade() -> None:
    """Create the schema's tables, indexes and view."""
    op.execute(TABLES)
