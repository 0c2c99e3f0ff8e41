-- The roles of docs/operating.md, of which the api and the console log in, and what each may do.
-- Run by psql, as a superuser, after every migration.
\getenv api_password API_POSTGRES_PASSWORD
\getenv console_password CONSOLE_POSTGRES_PASSWORD

SELECT format('CREATE ROLE %I NOLOGIN', name)
FROM unnest(ARRAY[
    'kratos_sync_api', 'kratos_sync_relay', 'kratos_sync_worker', 'kratos_sync_operator', 'kratos_sync_eraser',
    'kratos_sync_console', 'kratos_sync_reader'
]) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE kratos_sync_api
    LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD :'api_password';
ALTER ROLE kratos_sync_console
    LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD :'console_password';
GRANT USAGE ON SCHEMA kratos_sync
    TO kratos_sync_api, kratos_sync_relay, kratos_sync_worker, kratos_sync_operator, kratos_sync_eraser,
       kratos_sync_console, kratos_sync_reader;

\ir grants.sql
