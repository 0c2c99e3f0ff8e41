"""How much room the ledger takes, in statements that stay quick when it is much."""

from datetime import timedelta
from itertools import starmap
from typing import Final

from sqlalchemy import Connection, text

from application.ports.storage import Holder, Storage, TableSize
from infrastructure.ledger.purge_log import last_purge

LONG: Final = timedelta(minutes=10)
"""A transaction open for longer is worth a word."""
MANY_TRANSACTIONS: Final = 100_000
"""The same where only this can be seen."""

SIZES = text("""
    SELECT relname, pg_total_relation_size(oid) AS bytes FROM pg_class
    WHERE relnamespace = to_regnamespace('kratos_sync') AND relkind IN ('r', 'm')
    ORDER BY bytes DESC, relname
""")

OLDEST = text("""
    SELECT (SELECT min(recorded_at) FROM kratos_sync.events),
           (SELECT started_at FROM kratos_sync.attempts ORDER BY id LIMIT 1)
""")

# Of another role's session an ordinary one sees what it holds, and not for how long.
HOLDERS = text("""
    SELECT 'transaction', CAST(pid AS text), nullif(application_name, ''),
           clock_timestamp() - xact_start,
           greatest(age(backend_xmin), age(backend_xid)) AS transactions
    FROM pg_stat_activity
    WHERE (datname = current_database() OR datname IS NULL) AND pid <> pg_backend_pid()
      AND backend_type IS DISTINCT FROM 'autovacuum worker'
      AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
      AND coalesce(clock_timestamp() - xact_start > :long,
                   greatest(age(backend_xmin), age(backend_xid)) > :many)
    UNION ALL
    SELECT 'prepared transaction', gid, NULL, clock_timestamp() - prepared, age(transaction)
    FROM pg_prepared_xacts
    WHERE database = current_database() AND clock_timestamp() - prepared > :long
    UNION ALL
    SELECT 'replication slot', CAST(slot_name AS text), NULL, NULL, age(xmin)
    FROM pg_replication_slots WHERE age(xmin) > :many
    ORDER BY transactions DESC NULLS LAST
    LIMIT 10
""")


def storage(connection: Connection) -> Storage:
    """Look at the tables, the purges, and what holds rows that are gone."""
    events, attempts = connection.execute(OLDEST).one()
    return Storage(
        tables=tuple(starmap(TableSize, connection.execute(SIZES))),
        oldest_event_at=events,
        oldest_attempt_at=attempts,
        last_purge=last_purge(connection),
        holders=holders(connection),
    )


def holders(
    connection: Connection, long: timedelta = LONG, many: int = MANY_TRANSACTIONS
) -> tuple[Holder, ...]:
    """Look for what has held the rows that are gone for longer, in time or in transactions."""
    return tuple(starmap(Holder, connection.execute(HOLDERS, {"long": long, "many": many})))
