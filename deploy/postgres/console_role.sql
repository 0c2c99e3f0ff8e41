-- The console's role: what docs/operating.md gives it. Run by psql after every migration.
\getenv password CONSOLE_POSTGRES_PASSWORD

DO $$ BEGIN
    CREATE ROLE kratos_sync_console LOGIN;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;
ALTER ROLE kratos_sync_console LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD :'password';

BEGIN;
REVOKE ALL ON ALL TABLES IN SCHEMA kratos_sync FROM kratos_sync_console;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA kratos_sync FROM kratos_sync_console;
GRANT USAGE ON SCHEMA kratos_sync TO kratos_sync_console;
GRANT SELECT ON kratos_sync.alembic_version, kratos_sync.subscriptions, kratos_sync.consumer_policies,
                kratos_sync.events, kratos_sync.attempts, kratos_sync.purges, kratos_sync.hooks_heard,
                kratos_sync.audit, kratos_sync.timelines
    TO kratos_sync_console;
GRANT EXECUTE ON FUNCTION kratos_sync.retry_dead_letters, kratos_sync.discard_dead_letters
    TO kratos_sync_console;
GRANT SELECT, INSERT (event_id, consumer, subject, footprint, ordered)
    ON kratos_sync.deliveries TO kratos_sync_console;
GRANT INSERT (consumer, paused_at, paused_by, pause_reason), UPDATE (paused_at, paused_by, pause_reason)
    ON kratos_sync.consumer_policies TO kratos_sync_console;
GRANT EXECUTE ON FUNCTION kratos_sync.delete_identity TO kratos_sync_console;
GRANT EXECUTE ON FUNCTION kratos_sync.record_answer_events TO kratos_sync_console;
GRANT SELECT, INSERT, UPDATE (asked_at) ON kratos_sync.kratos_answers TO kratos_sync_console;
GRANT SELECT, INSERT, UPDATE, DELETE ON kratos_sync.reconciliations TO kratos_sync_console;
GRANT SELECT, INSERT, DELETE ON kratos_sync.unseen_identities TO kratos_sync_console;
GRANT SELECT, INSERT, UPDATE ON kratos_sync.kratos_identities TO kratos_sync_console;
GRANT SELECT, INSERT, UPDATE (erased_at, look_at) ON kratos_sync.erasures TO kratos_sync_console;
GRANT EXECUTE ON FUNCTION kratos_sync.record_erase_events, kratos_sync.erase_events, kratos_sync.erase_texts
    TO kratos_sync_console;
GRANT SELECT, INSERT, UPDATE ON kratos_sync.registrations_per_day TO kratos_sync_console;
GRANT EXECUTE ON FUNCTION kratos_sync.begin_operation, kratos_sync.note_operation, kratos_sync.cancel_operation
    TO kratos_sync_console;
COMMIT;
