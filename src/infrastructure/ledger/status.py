"""The status report, read in a few statements on one snapshot; and readiness."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from itertools import starmap
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, TextClause, text

from kratos_sync.application.ports.dead_letters import (
    RETRY_LATER,
    UNKNOWN_EVENT,
    WAITS_FOR_EARLIER,
)
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.status import (
    RECENT_ATTEMPTS,
    ConsumerStatus,
    Count,
    Holder,
    Pause,
    StatusReport,
    Storage,
    UnknownEvents,
)
from kratos_sync.infrastructure.ledger.hook_activity import hook_activity, template_failures
from kratos_sync.infrastructure.ledger.operations import unended_operations
from kratos_sync.infrastructure.ledger.purge import last_purge
from kratos_sync.infrastructure.ledger.snapshot import snapshot
from kratos_sync.infrastructure.ledger.timelines import failover
from kratos_sync.infrastructure.migrations import (
    SchemaTooNew,
    SchemaTooOld,
    current_revision,
    newest_revision,
    require_schema,
)
from kratos_sync.infrastructure.postgres.engine import (
    IS_READ_ONLY,
    how_far_ahead,
    translate_errors,
)
from kratos_sync.infrastructure.reconciliation.runs import drift

LONG: Final = timedelta(minutes=10)
"""Transactions open for longer are reported;"""
MANY_TRANSACTIONS: Final = 100_000
"""and so are those older than this many others, where their time is not visible."""
COUNTED: Final = 10_000
"""Tables with more rows are estimated, not counted,"""
CERTAINLY_MORE: Final = 10 * COUNTED
"""and none of them is read where the estimate is larger than this."""

SIZES = text("""
    SELECT relname, pg_total_relation_size(oid) AS bytes FROM pg_class
    WHERE relnamespace = to_regnamespace('kratos_sync') AND relkind IN ('r', 'm')
    ORDER BY bytes DESC, relname
""")

OLDEST = text("""
    SELECT (SELECT min(recorded_at) FROM kratos_sync.events),
           (SELECT started_at FROM kratos_sync.attempts ORDER BY id LIMIT 1)
""")

# An ordinary role sees what another role's session holds, and not for how long.
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

# An ordinary role sees that there is replication, and not its state: a backup counts then too.
UNSAFE: Final = text("""
    SELECT risk.name
    FROM (VALUES ('fsync', current_setting('fsync') = 'off'),
                 ('full_page_writes', current_setting('full_page_writes') = 'off'),
                 ('asynchronous_standby',
                  current_setting('synchronous_standby_names') = ''
                  AND EXISTS (SELECT FROM pg_stat_replication
                              WHERE state IS DISTINCT FROM 'backup'))) AS risk (name, applies)
    WHERE risk.applies
""")

# In two parts: an index leads to each of them, past any number of dead letters.
_PENDING_ROWS: Final = """
    (SELECT * FROM kratos_sync.deliveries WHERE failed_at IS NULL AND NOT leased
     UNION ALL
     SELECT * FROM kratos_sync.deliveries WHERE failed_at IS NULL AND leased) AS pending
"""
_IS_RETRIED: Final = f"attempts > 0 AND error_type <> '{RETRY_LATER}'"
_IS_UNKNOWN: Final = f"error_type = '{UNKNOWN_EVENT}'"
PENDING = text(f"""
    SELECT consumer,
           count(*) FILTER (WHERE is_due),
           count(*) FILTER (WHERE NOT is_due AND leased),
           count(*) FILTER (WHERE NOT is_due AND NOT leased),
           count(*) FILTER (WHERE is_postponed),
           now() - min(least(owed_at, now())) FILTER (WHERE NOT is_postponed),
           coalesce(bool_or({_IS_RETRIED}), false),
           coalesce(bool_or({_IS_UNKNOWN}), false)
    FROM (SELECT *, due_at <= now() OR NOT leased AND attempts = 0 AND error_type IS NULL
                    AS is_due,
                    due_at > now() AND NOT leased
                    AND coalesce(error_type IN ('{RETRY_LATER}', '{WAITS_FOR_EARLIER}'), false)
                    AS is_postponed
          FROM {_PENDING_ROWS}) AS pending
    GROUP BY consumer
    ORDER BY consumer
""")  # noqa: S608  # all of it is ours

DEAD = text("""
    SELECT consumer, count(*) FROM kratos_sync.deliveries WHERE failed_at IS NOT NULL
    GROUP BY consumer ORDER BY consumer
""")

# The pending ones are read again only if PENDING has seen such a delivery.
RETRIED_AFTER = text(f"""
    SELECT DISTINCT ON (consumer) consumer, concat_ws(': ', error_type, nullif(error_shape, ''))
    FROM {_PENDING_ROWS}
    WHERE {_IS_RETRIED}
    ORDER BY consumer, due_at DESC
""")  # noqa: S608  # all of it is ours

PAUSED = text("""
    SELECT consumer, paused_at, paused_by, pause_reason FROM kratos_sync.consumer_policies
    WHERE paused_at IS NOT NULL
""")

SUBSCRIBED = text("""
    SELECT consumer, array_agg(event ORDER BY event) FROM kratos_sync.subscriptions
    GROUP BY consumer
""")

UNKNOWN = text(f"""
    SELECT substr(last_error, length('{UNKNOWN_EVENT}: ') + 1), count(*), now() - min(owed_at)
    FROM {_PENDING_ROWS}
    WHERE {_IS_UNKNOWN}
    GROUP BY 1
    ORDER BY 1
""")  # noqa: S608  # all of it is ours

# No index leads from a consumer to its attempts; going back from the newest is quick if bounded.
LAST_SUCCESS = text(f"""
    SELECT consumer, max(started_at + duration) FROM kratos_sync.attempts
    WHERE id > (SELECT max(id) FROM kratos_sync.attempts) - {RECENT_ATTEMPTS}
      AND outcome = 'succeeded'
    GROUP BY consumer
""")  # noqa: S608  # the number is ours

# Counting the tombstones among many rows would read them all: their share is in the statistics.
TOMBSTONES = text("""
    SELECT (SELECT 1 - null_frac FROM pg_stats
            WHERE schemaname = 'kratos_sync' AND tablename = 'kratos_identities'
              AND attname = 'deleted_at')
""")

IDENTITIES = text("""
    SELECT count(*), count(deleted_at)
    FROM (SELECT deleted_at FROM kratos_sync.kratos_identities LIMIT :most) AS first_rows
""")

IS_WRITABLE: Final = text("SELECT current_setting('transaction_read_only') = 'off'")


class PostgresStatus:
    """The Status port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def report(self, consumers: Collection[str], *, with_successes: bool = True) -> StatusReport:
        with snapshot(self._engine) as connection:
            alive, deleted = _identities(connection)
            pending = {name: _Pending(*rest) for name, *rest in connection.execute(PENDING)}
            any_unknown = any(each.any_unknown for each in pending.values())
            return StatusReport(
                at=connection.execute(text("SELECT now()")).scalar_one(),
                revision=current_revision(connection) or "",
                needed_revision=newest_revision(),
                alive=alive,
                deleted=deleted,
                events=_count(connection, "events"),
                attempts=_count(connection, "attempts"),
                consumers=_consumers(connection, consumers, pending, with_successes=with_successes),
                unknown_events=_unknown_events(connection) if any_unknown else (),
                storage=storage(connection),
                drift=drift(connection),
                hooks=hook_activity(connection),
                clock_ahead=how_far_ahead(connection),
                unsafe=tuple(connection.execute(UNSAFE).scalars()),
                template_failures=template_failures(connection),
                operations=unended_operations(connection),
                failover=failover(connection),
            )


class _Pending(NamedTuple):
    """What PENDING counts of a consumer."""

    due: int = 0
    dispatched: int = 0
    waiting: int = 0
    postponed: int = 0
    lag: timedelta | None = None
    any_retried: bool = False
    any_unknown: bool = False


def _consumers(
    connection: Connection,
    known: Collection[str],
    pending: Mapping[str, _Pending],
    *,
    with_successes: bool,
) -> tuple[ConsumerStatus, ...]:
    dead = _by_name(connection, DEAD)
    events = _by_name(connection, SUBSCRIBED)
    paused = {name: Pause(*rest) for name, *rest in connection.execute(PAUSED)}
    any_retried = any(each.any_retried for each in pending.values())
    errors = _by_name(connection, RETRIED_AFTER) if any_retried else {}
    successes = _by_name(connection, LAST_SUCCESS) if with_successes else {}

    def status(name: str) -> ConsumerStatus:
        counted = pending.get(name, _Pending())
        return ConsumerStatus(
            name,
            name in known,
            counted.due,
            counted.dispatched,
            counted.waiting,
            counted.postponed,
            dead.get(name, 0),
            counted.lag,
            successes.get(name),
            errors.get(name),
            paused.get(name),
            tuple(events.get(name, ())),
        )

    return tuple(map(status, dict.fromkeys([*known, *sorted({*pending, *dead, *events})])))


def _by_name(connection: Connection, statement: TextClause) -> dict[str, Any]:
    return {row[0]: row[1] for row in connection.execute(statement)}


def _unknown_events(connection: Connection) -> tuple[UnknownEvents, ...]:
    return tuple(starmap(UnknownEvents, connection.execute(UNKNOWN)))


def _identities(connection: Connection) -> tuple[Count, Count]:
    total = _estimate(connection, "kratos_identities")
    share = connection.execute(TOMBSTONES).scalar_one()
    if total <= CERTAINLY_MORE or share is None:
        counted, deleted = connection.execute(IDENTITIES, {"most": COUNTED + 1}).one()
        if counted <= COUNTED:
            return Count(counted - deleted), Count(deleted)
        # Before the first ANALYZE there are no statistics: the rows just read stand for the others.
        share = deleted / counted if share is None else share
    tombstones = round(total * share)
    return Count(total - tombstones, estimated=True), Count(tombstones, estimated=True)


def _count(connection: Connection, table: str) -> Count:
    if (estimate := _estimate(connection, table)) > CERTAINLY_MORE:
        return Count(estimate, estimated=True)
    first_rows = f"SELECT FROM kratos_sync.{table} LIMIT :most"
    query = text(f"SELECT count(*) FROM ({first_rows}) AS first_rows")  # noqa: S608  # the tables are ours
    counted: int = connection.execute(query, {"most": COUNTED + 1}).scalar_one()
    return Count(counted) if counted <= COUNTED else Count(estimate, estimated=True)


def _estimate(connection: Connection, table: str) -> int:
    """The planner's estimate: pg_class.reltuples, scaled to the table's present size."""
    explain = text(f"EXPLAIN (FORMAT JSON) SELECT FROM kratos_sync.{table}")
    ((plan,),) = connection.execute(explain)
    rows: int = plan[0]["Plan"]["Plan Rows"]
    return rows


def storage(connection: Connection) -> Storage:
    """The tables, the last purge, and what keeps dead rows from being removed."""
    events, attempts = connection.execute(OLDEST).one()
    return Storage(
        tables={row.relname: row.bytes for row in connection.execute(SIZES)},
        oldest_event_at=events,
        oldest_attempt_at=attempts,
        last_purge=last_purge(connection),
        holders=holders(connection),
    )


def holders(
    connection: Connection, long: timedelta = LONG, many: int = MANY_TRANSACTIONS
) -> tuple[Holder, ...]:
    """What has kept dead rows for longer than that, in time or in transactions."""
    return tuple(starmap(Holder, connection.execute(HOLDERS, {"long": long, "many": many})))


class DatabaseReadiness:
    """A readiness check: PostgreSQL answers, and its schema is one that this release can use."""

    name = "database"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self) -> None:
        """Return when ready. Raises LedgerUnavailable, which says why, or DBAPIError."""
        with translate_errors():
            try:
                require_schema(self._engine)
            except (SchemaTooOld, SchemaTooNew) as error:
                raise LedgerUnavailable(str(error)) from error
            with self._engine.connect() as connection:
                if not connection.execute(IS_WRITABLE).scalar_one():
                    raise LedgerUnavailable(IS_READ_ONLY)
