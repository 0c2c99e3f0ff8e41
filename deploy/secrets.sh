#!/bin/sh
# secrets.sh: makes the passwords and keys that docker-compose.yml needs. Run it before the first
# `docker compose up`, and after each change of .env.
#
# .env is written with random values unless it exists. From it come the files in `secrets`, which
# Compose mounts into our containers: so no URL with a password stands in a container's environment.
set -eu
umask 077
cd "$(dirname "$0")/.."

random() {
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n'
}

value_of() {
    value=$(sed -n "s/^$1=//p" .env | tail -n 1)
    case $value in
        '' | *[!A-Za-z0-9._~,-]*)
            echo "$1 in .env: letters, digits and . _ ~ - only, and not empty" >&2
            exit 1
            ;;
    esac
    printf '%s' "$value"
}

write() {
    printf '%s\n' "$2" >"secrets/$1"
    # Our containers have a user of their own. Nobody else gets into the folder.
    chmod 644 "secrets/$1"
}

if [ ! -e .env ]; then
    while IFS= read -r line; do
        case $line in
            \#* | '') ;;
            *=) line=$line$(random) ;;
        esac
        printf '%s\n' "$line"
    done <.env.example >.env
fi

owner=$(value_of POSTGRES_PASSWORD)
api=$(value_of API_POSTGRES_PASSWORD)
console=$(value_of CONSOLE_POSTGRES_PASSWORD)
valkey=$(value_of VALKEY_PASSWORD)
keys=$(value_of KRATOS_WEBHOOK_API_KEYS)

# Kratos and psql have users of their own too, and a checkout may be for its owner alone.
chmod -R a+rX deploy/kratos deploy/postgres

mkdir -p secrets
chmod 700 secrets
write database_url "postgresql://kratos_sync:$owner@postgres:5432/kratos_sync"
write api_database_url "postgresql://kratos_sync_api:$api@postgres:5432/kratos_sync"
write console_database_url "postgresql://kratos_sync_console:$console@postgres:5432/kratos_sync"
write broker_url "redis://:$valkey@valkey:6379/0"
write webhook_api_keys "$keys"
