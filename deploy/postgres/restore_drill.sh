#!/usr/bin/env bash
# Restores a backup to an older minute beside the running database, and makes the copy equal to Kratos again:
#
#   KRATOS_ADMIN_URL=http://kratos:4434 deploy/postgres/restore_drill.sh BACKUP ARCHIVE '2026-01-31 12:00:00+00'
#
# BACKUP is a folder that pg_basebackup wrote, ARCHIVE the one that archive_command fills. Neither is changed. The
# restored server listens on a socket in a folder of its own, archives nothing, and is removed in the end. None of
# your consumers run, and nothing is deleted in Kratos. docs/postgresql.md says what to expect of it.
#
#   DRILL=/tmp/restore-drill   that folder, which must not exist; it needs as much room as the database
#   PGDATABASE, PGUSER         the database, and the owner of its schema; both are postgres
#   PGBIN                      where pg_ctl is, if not in the PATH: it must be of the backup's version
#   RESTORE_COMMAND            as in postgresql.conf, instead of copying from ARCHIVE
#   ALLOW_DELETES              how many deletions may be found, where the usual guard is too low
#   CHECK                      a command of yours for the restored database, which is in DATABASE_URL
#   KRATOS_SYNC=kratos-sync    the program
set -euo pipefail

usage() { echo "$1" >&2; sed -n '2,18s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# = 3 ] || usage 'Three arguments are needed.'
[ -n "${KRATOS_ADMIN_URL:-}" ] || usage 'Set KRATOS_ADMIN_URL: the copy is compared with Kratos.'
program=$(command -v "${KRATOS_SYNC:-kratos-sync}") || usage 'kratos-sync is not in the PATH: set KRATOS_SYNC.'
backup=$(realpath -- "$1") archive=$(realpath -- "$2") target=$3
folder=$(realpath -m -- "${DRILL:-/tmp/restore-drill}")
data=$folder/data serving='' is_ours=''
PATH=${PGBIN:+$PGBIN:}$PATH
url="postgresql://${PGUSER:-postgres}@/${PGDATABASE:-postgres}?host=$folder"
restore=${RESTORE_COMMAND:-cp \"${archive//%/%%}/%f\" \"%p\"}
# Of the environment of a running service only this is used, and no .env file.
mapfile -t admin_api < <(env | grep -E '^KRATOS_(ADMIN|PUBLIC|BROWSER)_')

# PostgreSQL does not run as root: then it runs as the owner of the backup.
as_owner() {
    [ "$(id -u)" != 0 ] || set -- setpriv --reuid="$(stat -c %u "$backup")" --regid="$(stat -c %g "$backup")" --clear-groups "$@"
    "$@"
}
alone() { (cd "$folder" && exec env -i PATH="$PATH" DATABASE_URL="$url" "$@"); }
query() { psql --no-psqlrc -qtAX -v ON_ERROR_STOP=1 "$url" -c "$1"; }
fail() { echo "$1" >&2; exit 1; }
until_true() { # WHAT QUERY
    for _ in $(seq 3000); do [ "$(query "$2")" != t ] || return 0; sleep 0.2; done
    fail "Not so after ten minutes: $1."
}
finish() {
    code=$?
    [ -z "$serving" ] || { kill "$serving" && wait "$serving"; } 2>/dev/null || :
    [ ! -s "$data/postmaster.pid" ] || as_owner pg_ctl stop -s -m fast -D "$data" || :
    [ "$code" = 0 ] || [ -z "$is_ours" ] || echo "The logs are in $folder." >&2
    [ "$code" != 0 ] || rm -rf -- "$folder"
}
trap finish EXIT
began=$(date +%s%N)
step() { # WHAT RESULT
    local now tenths
    now=$(date +%s%N) tenths=$((($(date +%s%N) - began) / 100000000))
    printf '| %s | %s | %d.%d |\n' "$1" "$2" $((tenths / 10)) $((tenths % 10))
    began=$now
}

mkdir -m 700 -- "$folder"
[ "$(id -u)" != 0 ] || chown --reference="$backup" -- "$folder"
is_ours=yes
printf '| step | result | seconds |\n|---|---|---|\n'
as_owner pg_verifybackup --quiet --no-parse-wal "$backup"
step 'verify the backup' "$(du -sm "$backup" | cut -f1) MB, as they were written"

as_owner cp -a -- "$backup" "$data"
as_owner chmod 700 "$data"
# Some systems keep these two elsewhere, so that they are not in a backup.
as_owner touch "$data/postgresql.conf" "$data/recovery.signal"
echo 'local all all trust' | as_owner tee "$folder/pg_hba.conf" >/dev/null
as_owner tee -a "$data/postgresql.auto.conf" >/dev/null <<SETTINGS
restore_command = '${restore//\'/\'\'}'
recovery_target_time = '${target//\'/\'\'}'
recovery_target_action = promote
hot_standby = off
archive_mode = off
synchronous_standby_names = ''
shared_buffers = 128MB
listen_addresses = ''
unix_socket_directories = '${folder//\'/\'\'}'
port = 5432
hba_file = '${folder//\'/\'\'}/pg_hba.conf'
SETTINGS
as_owner pg_ctl start -s -W -D "$data" -l "$folder/postgresql.log" >/dev/null
until query 'SELECT' 2>/dev/null; do # it accepts no connection before the end of the recovery
    sleep 0.2
    as_owner pg_ctl status -D "$data" >/dev/null || fail "$(grep FATAL "$folder/postgresql.log")"
done
timeline=$(query "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int")
step "restore to $target" "the last transaction committed at $(query 'SELECT pg_last_xact_replay_timestamp()'); timeline $timeline"

alone "$program" migrate >"$folder/migrate.log"
step 'migrate' "$(query "SELECT format('%s identities; %s events, the newest of %s; %s deliveries pending',
    (SELECT count(*) FROM kratos_sync.kratos_identities WHERE deleted_at IS NULL),
    (SELECT count(*) FROM kratos_sync.events), (SELECT max(recorded_at) FROM kratos_sync.events),
    (SELECT count(*) FROM kratos_sync.deliveries WHERE failed_at IS NULL))")"

# Without Kratos' address it can delete nothing there; without KRATOS_SYNC_APP it has none of your consumers.
(
    cd "$folder"
    key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    exec env -i PATH="$PATH" DATABASE_URL="$url" LOG_FORMAT=json KRATOS_WEBHOOK_API_KEYS="$key" "$program" all --port 0
) >"$folder/all.log" 2>&1 &
serving=$!
until_true 'the relay notes the timeline' "SELECT timeline = $timeline FROM kratos_sync.timelines ORDER BY id DESC LIMIT 1"
alone "$program" status >"$folder/status.log"
step 'status' "$(grep -m1 -E 'was restored|restored dump' "$folder/status.log" | sed 's,^ *- ,,' | grep . ||
    echo 'names no restore: until then no relay had noted a timeline')"

settled="SELECT NOT EXISTS (SELECT FROM kratos_sync.deliveries WHERE failed_at IS NULL
    AND consumer IN ('SyncKratosIdentity', 'DeleteKratosIdentity'))"
found="SELECT format('%s missing, %s different, %s deleted in Kratos', missing, stale, gone)
    FROM kratos_sync.reconciliations WHERE outcome = 'completed' ORDER BY id DESC LIMIT 1"
for run in reconcile 'reconcile again'; do
    until_true 'the identities are consumed' "$settled"
    alone "${admin_api[@]}" "$program" reconcile --allow-deletes "${ALLOW_DELETES:-0}" --reason 'restore drill' >>"$folder/reconcile.log"
    result=$(query "$found")
    step "$run" "$result"
done
[ "$result" = '0 missing, 0 different, 0 deleted in Kratos' ] || fail 'The copy still differs from Kratos.'
alone "$program" status >"$folder/status.log"
! grep -qE 'was restored|restored dump' "$folder/status.log" || fail 'status still names the restore.'
if [ -n "${CHECK:-}" ]; then
    alone sh -c "$CHECK"
    step 'your check' 'passed'
fi
