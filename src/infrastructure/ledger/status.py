"""How the ledger stands, in a few statements on one snapshot."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, Engine, text

from application.ports.failures import RETRY_LATER
from application.ports.status import (
    RECENT_ATTEMPTS,
    ConsumerStatus,
    Count,
    StatusReport,
    UnknownEvents,
)
from infrastructure.ledger.clock import how_far_ahead
from infrastructure.ledger.durability import unsafe_settings
from infrastructure.ledger.hook_log import hooks_heard
from infrastructure.ledger.snapshot import snapshot
from infrastructure.ledger.storage import storage
from infrastructure.ledger.template_failures import template_failures
from infrastructure.migrations import current_revision, newest_revision
from infrastructure.reconciliation.past import drift

COUNTED: Final = 10_000
"""Tables with more rows are not counted but estimated."""
NOTHING: Final = (0, 0, 0, 0, 0, None)

OWED = text("""
    SELECT consumer,
           count(*) FILTER (WHERE failed_at IS NULL AND is_due),
           count(*) FILTER (WHERE failed_at IS NULL AND NOT is_due AND leased),
           count(*) FILTER (WHERE failed_at IS NULL AND NOT is_due AND NOT leased),
           count(*) FILTER (WHERE asked_for_later),
           count(failed_at),
           now() - min(least(owed_at, now()))
               FILTER (WHERE failed_at IS NULL AND NOT asked_for_later)
    FROM (SELECT *, due_at <= now() OR NOT leased AND attempts = 0 AND error_type IS NULL
                    AS is_due,
                    failed_at IS NULL AND due_at > now() AND NOT leased
                    AND coalesce(error_type = :retry_later, false) AS asked_for_later
          FROM kratos_sync.deliveries) AS owed
    GROUP BY consumer
    ORDER BY consumer
""").bindparams(retry_later=RETRY_LATER)

# substr, unlike LIKE, reads no more of a long error than its beginning.
UNKNOWN = text("""
    SELECT substr(last_error, 15), count(*), now() - min(owed_at)
    FROM kratos_sync.deliveries
    WHERE failed_at IS NULL AND substr(last_error, 1, 14) = 'UnknownEvent: '
    GROUP BY 1
    ORDER BY 1
""")

# No index leads from a consumer to its attempts; going back from the newest is quick if bounded.
LAST_SUCCESS = text("""
    SELECT consumer.name,
           (SELECT a.started_at + a.duration FROM kratos_sync.attempts a
            WHERE a.consumer = consumer.name AND a.outcome = 'succeeded'
              AND a.id > (SELECT max(id) FROM kratos_sync.attempts) - :recent
            ORDER BY a.id DESC LIMIT 1)
    FROM unnest(CAST(:consumers AS text[])) AS consumer (name)
""")

# Counting the tombstones among many rows would read them all: their share is in the statistics.
IDENTITIES = text("""
    SELECT count(*), count(deleted_at),
           (SELECT 1 - null_frac FROM pg_stats
            WHERE schemaname = 'kratos_sync' AND tablename = 'kratos_identities'
              AND attname = 'deleted_at')
    FROM (SELECT deleted_at FROM kratos_sync.kratos_identities LIMIT :most) AS first_rows
""")


class PostgresStatus:
    """The status port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def report(self, consumers: Collection[str]) -> StatusReport:
        """Look at everything in one read-only transaction.

        Raises SchemaTooOld, LedgerUnavailable or sqlalchemy.exc.DBAPIError.
        """
        with snapshot(self._engine) as connection:
            alive, deleted = _identities(connection)
            return StatusReport(
                at=connection.execute(text("SELECT now()")).scalar_one(),
                revision=current_revision(connection) or "",
                needed_revision=newest_revision(),
                alive=alive,
                deleted=deleted,
                events=_count(connection, "events"),
                attempts=_count(connection, "attempts"),
                consumers=_consumers(connection, consumers),
                unknown_events=tuple(UnknownEvents(*row) for row in connection.execute(UNKNOWN)),
                storage=storage(connection),
                drift=drift(connection),
                hooks=hooks_heard(connection),
                clock_ahead=how_far_ahead(connection),
                unsafe=unsafe_settings(connection),
                template_failures=template_failures(connection),
            )


def _consumers(connection: Connection, known: Collection[str]) -> tuple[ConsumerStatus, ...]:
    owed = {name: rest for name, *rest in connection.execute(OWED)}
    names = [*known, *(name for name in owed if name not in known)]
    recent = {"consumers": names, "recent": RECENT_ATTEMPTS}
    return tuple(
        ConsumerStatus(name, name in known, *owed.get(name, NOTHING), *success)
        for name, *success in connection.execute(LAST_SUCCESS, recent)
    )


def _identities(connection: Connection) -> tuple[Count, Count]:
    counted, deleted, share = connection.execute(IDENTITIES, {"most": COUNTED + 1}).one()
    if counted <= COUNTED:
        return Count(counted - deleted), Count(deleted)
    total = _estimate(connection, "kratos_identities")
    # Before the first ANALYZE there are no statistics: the rows just read stand for the others.
    tombstones = round(total * (deleted / counted if share is None else share))
    return Count(total - tombstones, estimated=True), Count(tombstones, estimated=True)


def _count(connection: Connection, table: str) -> Count:
    first_rows = f"SELECT FROM kratos_sync.{table} LIMIT :most"
    query = text(f"SELECT count(*) FROM ({first_rows}) AS first_rows")  # noqa: S608  # the tables are ours
    counted: int = connection.execute(query, {"most": COUNTED + 1}).scalar_one()
    if counted <= COUNTED:
        return Count(counted)
    return Count(_estimate(connection, table), estimated=True)


def _estimate(connection: Connection, table: str) -> int:
    """What the planner thinks: pg_class.reltuples, brought up to the table's size of now."""
    explain = text(f"EXPLAIN (FORMAT JSON) SELECT FROM kratos_sync.{table}")
    ((plan,),) = connection.execute(explain)
    rows: int = plan[0]["Plan"]["Plan Rows"]
    return rows
