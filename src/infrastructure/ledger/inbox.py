"""The transaction of a batch: its inbox, its consumer, and the failures of its attempts."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.footprint import (
    SMALL_BYTES,
    VALUE_BYTES,
    WIDE_TEXT_BYTES,
    Admission,
    Size,
)
from kratos_sync.application.ports.dead_letters import (
    QUARANTINED_ERRORS,
    UNKNOWN_EVENT,
    WAITS_FOR_EARLIER,
    FailedAttempt,
)
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres import binary_arrays as binary
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.connections import LOCK_TIMEOUT, milliseconds
from kratos_sync.infrastructure.postgres.engine import readable, translate_errors
from kratos_sync.infrastructure.postgres.json import storable
from kratos_sync.infrastructure.postgres.transaction import Transaction

A_MOMENT: Final = timedelta(seconds=1)

SET_LOCK_TIMEOUT: Final = text("SELECT set_config('lock_timeout', :lock_timeout, true)")

RECORD_FAILURE = text("""
    WITH failed AS (
        UPDATE kratos_sync.deliveries
        SET attempts = attempts + CASE WHEN :outcome = 'postponed' THEN 0 ELSE 1 END,
            due_at = clock_timestamp() + coalesce(CAST(:retry_after AS interval), '0'),
            leased = false,
            last_error = :error,
            error_type = coalesce(:error_type, 'unknown error'),
            error_shape = :error_shape,
            failed_at = CASE WHEN :outcome = 'gave_up' THEN clock_timestamp() END
        WHERE consumer = :consumer AND event_id = :event_id AND attempts = :number - 1
        RETURNING event_id
    )
    INSERT INTO kratos_sync.attempts
           (event_id, consumer, number, outcome, started_at, duration, error)
    SELECT event_id, :consumer, :number, :outcome, :started_at, :duration, :error
    FROM failed
""")


class PostgresFailures:
    """The Failures port: a transaction for each attempt.

    It waits at most `lock_timeout` for a locked row, or as long as any transaction.
    """

    def __init__(self, engine: Engine, lock_timeout: timedelta = LOCK_TIMEOUT) -> None:
        self._engine = engine
        self._lock_timeout = {"lock_timeout": str(milliseconds(lock_timeout))}

    def record(self, attempt: FailedAttempt) -> None:
        with translate_errors(), self._engine.begin() as connection:
            connection.execute(SET_LOCK_TIMEOUT, self._lock_timeout)
            record_failures(connection, [attempt])


def record_failures(connection: Connection, attempts: Iterable[FailedAttempt]) -> None:
    """Log attempts in the connection's transaction; each counts once."""
    rows = [
        {
            "event_id": attempt.event_id,
            "consumer": attempt.consumer,
            "number": attempt.number,
            "started_at": attempt.started_at,
            "duration": attempt.duration,
            "outcome": attempt.outcome,
            "error": storable(attempt.error),
            "error_type": attempt.error_type and storable(attempt.error_type),
            "error_shape": attempt.error_shape and storable(attempt.error_shape),
            "retry_after": attempt.retry_after,
        }
        for attempt in attempts
    ]
    connection.execute(RECORD_FAILURE, rows)


QUARANTINED: Final = list(QUARANTINED_ERRORS)


def _estimated(text: str) -> str:
    """SQL for an upper bound of `footprint_of` a text, for rows without a footprint."""
    values = f"length({text}) - length(translate({text}, '{{[,:', ''))"
    bytes_ = (
        f"octet_length({text})::bigint * {WIDE_TEXT_BYTES} + ({values})::bigint * {VALUE_BYTES}"
    )
    return f"least({bytes_}, 2147483647)::integer"


_EVENT: Final = f"coalesce(e.footprint, {_estimated('e.payload::text')})"
_STORED: Final = """concat(held.traits, held.metadata_public, held.metadata_admin, held.unknown,
    held.verifiable_addresses, held.recovery_addresses, held.part_recency, held.exact_numbers)"""
_HELD: Final = f"""CASE WHEN held.id IS NULL THEN 0
                ELSE coalesce(held.footprint, {_estimated(_STORED)}) END"""

# The payloads of large events are loaded afterwards, for those that are admitted. OFFSET 0: a row
# is looked up by its id, although the planner may believe that a table is empty.
OPEN: Final = f"""
    SELECT e.id, d.attempts + 1, e.name, e.subject,
           {readable("e.occurred_at")},
           CASE WHEN {_EVENT} <= {SMALL_BYTES} THEN e.payload::text END, e.trace_context,
           coalesce(d.attempts > 0 AND d.error_type = ANY($3::text[]), false),
           e.source, e.recorded_at, e.hook, {_EVENT}, {_HELD}
    FROM kratos_sync.deliveries d
    CROSS JOIN LATERAL (SELECT * FROM kratos_sync.events WHERE id = d.event_id OFFSET 0) e
    LEFT JOIN LATERAL (
        SELECT * FROM kratos_sync.kratos_identities WHERE id = e.subject OFFSET 0
    ) held ON true
    WHERE d.consumer = $1 AND d.event_id = ANY($2::uuid[]) AND d.failed_at IS NULL
      AND (d.leased OR d.due_at <= now())
    ORDER BY d.event_id
    FOR UPDATE OF d SKIP LOCKED
""".encode()  # noqa: S608  # the numbers are ours

READ: Final = "SELECT id, payload::text FROM kratos_sync.events WHERE id = ANY($1::uuid[])"

SETTLE: Final = """
    WITH settled AS (
        DELETE FROM kratos_sync.deliveries
        WHERE consumer = $1 AND event_id = ANY($2::uuid[])
        RETURNING event_id, consumer, attempts + 1 AS number
    )
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT event_id, consumer, number, 'succeeded', $3::timestamptz, $4::interval FROM settled
"""

# The next delivery about each identity, if it only waited for its turn. Materialized: looked for
# again for each row, it would be another one once the first was updated. A claim that runs at this
# moment may be setting it back: the lock is waited for. One that has begun, and has still to lock
# it, leaves a row alone that has changed since: so it is written even if it does not wait.
WAKE: Final = f"""
    WITH next AS MATERIALIZED (
        SELECT first.event_id
        FROM unnest($2::uuid[]) AS settled (subject) CROSS JOIN LATERAL (
            SELECT event_id FROM kratos_sync.deliveries
            WHERE ordered AND consumer = $1 AND subject = settled.subject AND failed_at IS NULL
              AND NOT leased
            ORDER BY owed_at, event_id LIMIT 1
            FOR UPDATE
        ) AS first
    )
    UPDATE kratos_sync.deliveries d
    SET due_at = CASE error_type WHEN '{WAITS_FOR_EARLIER}' THEN clock_timestamp() ELSE due_at END,
        error_type = nullif(error_type, '{WAITS_FOR_EARLIER}')
    FROM next
    WHERE d.consumer = $1 AND d.event_id = next.event_id
""".encode()  # noqa: S608  # the type is ours

POSTPONE: Final = f"""
    UPDATE kratos_sync.deliveries
    SET due_at = clock_timestamp() + $1::interval, leased = false, last_error = $2,
        error_type = '{UNKNOWN_EVENT}'
    WHERE consumer = $3 AND event_id = ANY($4::uuid[])
"""  # noqa: S608  # the type is ours

RELEASE: Final = """
    UPDATE kratos_sync.deliveries SET due_at = clock_timestamp(), leased = false
    WHERE consumer = $1 AND event_id = ANY($2::uuid[])
"""

SET_ASIDE: Final = """
    UPDATE kratos_sync.deliveries d
    SET due_at = clock_timestamp() + $1::interval, leased = false, footprint = large.footprint
    FROM unnest($3::uuid[], $4::integer[]) AS large (event_id, footprint)
    WHERE d.consumer = $2 AND d.event_id = large.event_id
"""

# For an event that this release does not know: a newer release may.
POSTPONED_FOR = timedelta(minutes=1)


class PostgresInbox:
    """The Inbox port, in one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def open(
        self, consumer: str, event_ids: Sequence[UUID], admission: Admission | None = None
    ) -> list[PendingDelivery]:
        rows = self._transaction.fetch(OPEN, (consumer, uuid_array(event_ids), QUARANTINED))
        if admission is not None:
            chosen = admission.choose([Size(row[0], row[3], row[11], row[12]) for row in rows])
            rows = [row for row in rows if row[0] in chosen]
        large = [row[0] for row in rows if row[5] is None]
        payloads: dict[UUID, str] = {}
        if large:
            payloads.update(self._transaction.fetch(READ, [uuid_array(large)]))
        deliveries = [
            PendingDelivery._make((*row[:5], payloads.get(row[0], row[5]), *row[6:11]))
            for row in rows
        ]
        self._transaction.subjects = tuple({delivery.subject for delivery in deliveries})
        self._transaction.event_ids = event_ids
        return deliveries

    def settle(
        self,
        consumer: str,
        deliveries: Sequence[PendingDelivery],
        started_at: datetime,
        duration: timedelta,
    ) -> None:
        ids = uuid_array(delivery.event_id for delivery in deliveries)
        self._transaction.run(SETTLE, (consumer, ids, started_at, duration))

    def wake_next(self, consumer: str, subjects: Collection[UUID]) -> None:
        if self._transaction.run(WAKE, (consumer, uuid_array(subjects))):
            self._transaction.has_made_due = True

    def fail(self, attempts: Sequence[FailedAttempt]) -> None:
        record_failures(self._transaction.connection, attempts)

    def release(self, consumer: str, event_ids: Sequence[UUID]) -> None:
        self._transaction.run(RELEASE, (consumer, uuid_array(event_ids)))
        self._transaction.has_made_due = True

    def set_aside(self, consumer: str, footprints: Mapping[UUID, int], wait: timedelta) -> None:
        fields = [binary.int4_field(each) for each in footprints.values()]
        sizes = binary.array(binary.INT4_OID, fields)
        self._transaction.run(SET_ASIDE, (wait, consumer, uuid_array(footprints), sizes))

    def postpone(self, consumer: str, event_ids: Sequence[UUID], reason: str) -> None:
        ids = uuid_array(event_ids)
        self._transaction.run(POSTPONE, (POSTPONED_FOR, reason, consumer, ids))


class PostgresUnitOfWork(Transaction):
    """The UnitOfWork port: a transaction with the inbox, the event log and the consumers."""

    def __init__(
        self,
        engine: Engine,
        consumers: ConsumerFactory[Transaction],
        wake_relay: Callable[[], None],
    ) -> None:
        """``wake_relay`` is called after a commit with new events."""
        super().__init__(engine)
        self._consumers = consumers
        self._wake_relay = wake_relay

    @property
    def inbox(self) -> PostgresInbox:
        return PostgresInbox(self)

    def consumer(self, kind: type[Consumer[Any]]) -> Consumer[Any]:
        return self._consumers(kind, self)

    def record(self, events: Sequence[tuple[DomainEvent, Provenance]]) -> None:
        record_many(self._open_connection, events)
        self.has_made_due |= bool(events)

    def commit(self) -> None:
        super().commit()
        if self.has_made_due:
            self._wake_relay()

    def _open(self, connection: Connection, time_limit: timedelta) -> None:
        self.has_made_due = False
        super()._open(connection, time_limit)
