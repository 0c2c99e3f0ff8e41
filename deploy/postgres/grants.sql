-- What each role of docs/operating.md may do: `kratos-sync migrate --grants deploy/postgres/grants.sql`.
BEGIN;
REVOKE ALL ON ALL TABLES IN SCHEMA kratos_sync
    FROM kratos_sync_api, kratos_sync_relay, kratos_sync_worker, kratos_sync_operator, kratos_sync_eraser,
         kratos_sync_console, kratos_sync_reader;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA kratos_sync
    FROM kratos_sync_api, kratos_sync_relay, kratos_sync_worker, kratos_sync_operator, kratos_sync_eraser,
         kratos_sync_console, kratos_sync_reader;

GRANT SELECT ON kratos_sync.alembic_version, kratos_sync.deployment
    TO kratos_sync_api, kratos_sync_relay, kratos_sync_worker, kratos_sync_operator, kratos_sync_eraser;
GRANT SELECT ON kratos_sync.subscriptions, kratos_sync.consumer_policies
    TO kratos_sync_relay, kratos_sync_worker, kratos_sync_operator;

-- The api records webhooks' events and their deliveries by this function alone.
GRANT EXECUTE ON FUNCTION kratos_sync.record_webhook_events TO kratos_sync_api;
-- It counts calls by hook.
GRANT SELECT, INSERT, UPDATE (last_at, calls) ON kratos_sync.hooks_heard TO kratos_sync_api;

-- The relay leases what is due, and purges by functions that keep what is pending. It cannot read
-- what an event or an error says.
GRANT SELECT (ctid, event_id, consumer, subject, attempts, owed_at, due_at, leased, failed_at, error_type,
              footprint, ordered),
      UPDATE (due_at, leased, error_type)
    ON kratos_sync.deliveries TO kratos_sync_relay;
GRANT EXECUTE ON FUNCTION kratos_sync.purge_events, kratos_sync.purge_attempts TO kratos_sync_relay;
-- A consumer's rate is shared by all relays.
GRANT INSERT (consumer), UPDATE (tokens, refilled_at) ON kratos_sync.consumer_policies TO kratos_sync_relay;
GRANT SELECT, INSERT, UPDATE, DELETE ON kratos_sync.purges TO kratos_sync_relay;
-- It notes failovers.
GRANT SELECT, INSERT (system_identifier, timeline, begins_at, last_commit_at, seen_before),
      UPDATE (seen_before)
    ON kratos_sync.timelines TO kratos_sync_relay;
-- These two functions only change rows of identities in the table of erasures, and return numbers.
GRANT SELECT (identity_id, asked_at, erased_at, look_at), UPDATE (erased_at, look_at)
    ON kratos_sync.erasures TO kratos_sync_relay;
GRANT EXECUTE ON FUNCTION kratos_sync.erase_events, kratos_sync.erase_texts TO kratos_sync_relay;
-- It counts for metrics, and reads nobody. Without METRICS_PORT it needs none of these.
GRANT SELECT (id, consumer, outcome, started_at, duration) ON kratos_sync.attempts TO kratos_sync_relay;
GRANT SELECT (subject, name, recorded_at) ON kratos_sync.events TO kratos_sync_relay;
GRANT SELECT (state, deleted_at) ON kratos_sync.kratos_identities TO kratos_sync_relay;
GRANT SELECT (id, started_at, ended_at, outcome, missing, stale, gone)
    ON kratos_sync.reconciliations TO kratos_sync_relay;
GRANT SELECT (label, last_at) ON kratos_sync.hooks_heard TO kratos_sync_relay;

-- The worker consumes: consumers of your own need grants on your own tables too.
GRANT SELECT, INSERT ON kratos_sync.events TO kratos_sync_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON kratos_sync.deliveries TO kratos_sync_worker;
GRANT INSERT ON kratos_sync.attempts TO kratos_sync_worker;
GRANT SELECT, INSERT, UPDATE
    ON kratos_sync.kratos_identities, kratos_sync.registrations_per_day, kratos_sync.kratos_answers
    TO kratos_sync_worker;
GRANT SELECT, INSERT, UPDATE (look_at) ON kratos_sync.erasures TO kratos_sync_worker;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON kratos_sync.reconciliations, kratos_sync.unseen_identities TO kratos_sync_worker;
-- What Kratos answered to `reconcile` and `sync` is recorded by this function.
GRANT EXECUTE ON FUNCTION kratos_sync.record_answer_events TO kratos_sync_worker;

-- The operator reads events and errors, retries and discards, and reads no traits of the copy.
GRANT SELECT (id, state, version, created_at, updated_at, deleted_at, synced_at, forgotten_at)
    ON kratos_sync.kratos_identities TO kratos_sync_operator;
GRANT SELECT ON kratos_sync.events TO kratos_sync_operator;
GRANT SELECT ON kratos_sync.attempts TO kratos_sync_operator;
GRANT EXECUTE ON FUNCTION kratos_sync.purge_events, kratos_sync.purge_attempts TO kratos_sync_operator;
GRANT EXECUTE ON FUNCTION kratos_sync.retry_dead_letters, kratos_sync.discard_dead_letters
    TO kratos_sync_operator;
-- To replay.
GRANT SELECT, INSERT (event_id, consumer, subject, footprint, ordered)
    ON kratos_sync.deliveries TO kratos_sync_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON kratos_sync.purges TO kratos_sync_operator;
GRANT SELECT ON kratos_sync.reconciliations, kratos_sync.timelines TO kratos_sync_operator;
-- To pause and limit consumers.
GRANT INSERT (consumer, paused_at, paused_by, pause_reason, rate, concurrency),
      UPDATE (paused_at, paused_by, pause_reason, rate, concurrency)
    ON kratos_sync.consumer_policies TO kratos_sync_operator;
-- To remove a renamed hook from the list.
GRANT SELECT, DELETE ON kratos_sync.hooks_heard TO kratos_sync_operator;
GRANT SELECT ON kratos_sync.erasures TO kratos_sync_operator;
GRANT EXECUTE ON FUNCTION kratos_sync.delete_identity TO kratos_sync_operator;

-- The eraser makes a tombstone, records identity.deleted, and has the rest erased unread.
GRANT SELECT, INSERT, UPDATE ON kratos_sync.kratos_identities TO kratos_sync_eraser;
GRANT SELECT (id, name, subject, erased_at) ON kratos_sync.events TO kratos_sync_eraser;
GRANT SELECT (event_id) ON kratos_sync.deliveries TO kratos_sync_eraser;
GRANT EXECUTE ON FUNCTION kratos_sync.record_erase_events TO kratos_sync_eraser;
GRANT SELECT (event_id, outcome) ON kratos_sync.attempts TO kratos_sync_eraser;
GRANT SELECT, INSERT, UPDATE (erased_at, look_at) ON kratos_sync.erasures TO kratos_sync_eraser;
GRANT EXECUTE ON FUNCTION kratos_sync.erase_events, kratos_sync.erase_texts TO kratos_sync_eraser;

-- The console reads all that its pages show, and changes what they offer.
GRANT SELECT ON kratos_sync.alembic_version, kratos_sync.subscriptions, kratos_sync.consumer_policies,
                kratos_sync.events, kratos_sync.attempts, kratos_sync.purges, kratos_sync.hooks_heard,
                kratos_sync.audit, kratos_sync.timelines, kratos_sync.deployment
    TO kratos_sync_console;
-- It decides about dead letters alone, replays, pauses, requests deletions.
GRANT EXECUTE ON FUNCTION kratos_sync.retry_dead_letters, kratos_sync.discard_dead_letters
    TO kratos_sync_console;
GRANT SELECT, INSERT (event_id, consumer, subject, footprint, ordered)
    ON kratos_sync.deliveries TO kratos_sync_console;
GRANT INSERT (consumer, paused_at, paused_by, pause_reason), UPDATE (paused_at, paused_by, pause_reason)
    ON kratos_sync.consumer_policies TO kratos_sync_console;
GRANT EXECUTE ON FUNCTION kratos_sync.delete_identity TO kratos_sync_console;
-- It records what Kratos answers, about one identity or in a reconciliation.
GRANT EXECUTE ON FUNCTION kratos_sync.record_answer_events TO kratos_sync_console;
GRANT SELECT, INSERT, UPDATE (asked_at) ON kratos_sync.kratos_answers TO kratos_sync_console;
GRANT SELECT, INSERT, UPDATE, DELETE ON kratos_sync.reconciliations TO kratos_sync_console;
GRANT SELECT, INSERT, DELETE ON kratos_sync.unseen_identities TO kratos_sync_console;
-- It erases as the eraser does. It locks copies while it asks about them, and tries consumers, which
-- write as in a worker until all is rolled back.
GRANT SELECT, INSERT, UPDATE ON kratos_sync.kratos_identities TO kratos_sync_console;
GRANT SELECT, INSERT, UPDATE (erased_at, look_at) ON kratos_sync.erasures TO kratos_sync_console;
GRANT EXECUTE ON FUNCTION kratos_sync.record_erase_events, kratos_sync.erase_events, kratos_sync.erase_texts
    TO kratos_sync_console;
GRANT SELECT, INSERT, UPDATE ON kratos_sync.registrations_per_day TO kratos_sync_console;

-- Operations are recorded by functions that change nothing of what was recorded. The relay removes
-- those that are older than OPERATIONS_RETENTION_DAYS: not the operator, whom they are about.
GRANT EXECUTE ON FUNCTION kratos_sync.begin_operation, kratos_sync.note_operation
    TO kratos_sync_relay, kratos_sync_worker, kratos_sync_operator, kratos_sync_eraser, kratos_sync_console;
GRANT EXECUTE ON FUNCTION kratos_sync.cancel_operation TO kratos_sync_operator, kratos_sync_console;
GRANT EXECUTE ON FUNCTION kratos_sync.purge_operations TO kratos_sync_relay;
GRANT SELECT ON kratos_sync.audit TO kratos_sync_operator, kratos_sync_worker;

-- The application reads the copy: GRANT kratos_sync_reader TO its_own_role. To report a change:
-- GRANT EXECUTE ON FUNCTION kratos_sync.identity_changed(uuid) TO its_own_role; to request a
-- deletion: GRANT EXECUTE ON FUNCTION kratos_sync.delete_identity TO its_own_role.
GRANT SELECT ON kratos_sync.kratos_identities, kratos_sync.identity_addresses TO kratos_sync_reader;
COMMIT;
