-- The api's role: what docs/operating.md gives it. Run by psql after every migration.
\getenv password API_POSTGRES_PASSWORD

DO $$ BEGIN
    CREATE ROLE kratos_sync_api LOGIN;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;
ALTER ROLE kratos_sync_api LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD :'password';

BEGIN;
REVOKE ALL ON ALL TABLES IN SCHEMA kratos_sync FROM kratos_sync_api;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA kratos_sync FROM kratos_sync_api;
GRANT USAGE ON SCHEMA kratos_sync TO kratos_sync_api;
GRANT SELECT ON kratos_sync.alembic_version, kratos_sync.deployment TO kratos_sync_api;
GRANT EXECUTE ON FUNCTION kratos_sync.record_webhook_events TO kratos_sync_api;
GRANT SELECT, INSERT, UPDATE (last_at, calls) ON kratos_sync.hooks_heard TO kratos_sync_api;
COMMIT;
