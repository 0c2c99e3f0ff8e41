"""The inbox: no delivery row, nothing to do."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import starmap
from typing import Final
from uuid import UUID

from application.ports.failures import SUSPECT_ERRORS, FailedAttempt
from application.ports.unit_of_work import Owed
from infrastructure.binary_arrays import uuid_array
from infrastructure.ledger.failures import record_failures
from infrastructure.transaction import Transaction

SUSPECTS: Final = list(SUSPECT_ERRORS)

OPEN: Final = """
    SELECT e.id, d.attempts + 1, e.name, e.subject, e.occurred_at, e.payload::text, e.trace_context,
           coalesce(d.attempts > 0 AND d.error_type = ANY($3::text[]), false),
           e.source, e.recorded_at
    FROM kratos_sync.deliveries d
    JOIN kratos_sync.events e ON e.id = d.event_id
    WHERE d.consumer = $1 AND d.event_id = ANY($2::uuid[]) AND d.failed_at IS NULL
      AND (d.leased OR d.due_at <= now())
    ORDER BY d.event_id
    FOR UPDATE OF d SKIP LOCKED
"""

SETTLE: Final = """
    WITH settled AS (
        DELETE FROM kratos_sync.deliveries
        WHERE consumer = $1 AND event_id = ANY($2::uuid[])
        RETURNING event_id, consumer, attempts + 1 AS number
    )
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT event_id, consumer, number, 'succeeded', $3::timestamptz, $4::interval FROM settled
"""

POSTPONE: Final = """
    UPDATE kratos_sync.deliveries
    SET due_at = clock_timestamp() + $1::interval, leased = false, last_error = $2
    WHERE consumer = $3 AND event_id = ANY($4::uuid[])
"""

RELEASE: Final = """
    UPDATE kratos_sync.deliveries SET due_at = clock_timestamp(), leased = false
    WHERE consumer = $1 AND event_id = ANY($2::uuid[])
"""

# A release that knows the event may be a deploy away; nobody waits for it meanwhile.
POSTPONED_FOR = timedelta(minutes=1)


class PostgresInbox:
    """The inbox port, in one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def open(self, consumer: str, event_ids: Sequence[UUID]) -> list[Owed]:
        """Lock and load what is owed, in one statement."""
        rows = self._transaction.fetch(OPEN, (consumer, uuid_array(event_ids), SUSPECTS))
        owed = list(starmap(Owed, rows))
        self._transaction.subjects = tuple({delivery.subject for delivery in owed})
        self._transaction.event_ids = event_ids
        return owed

    def settle(
        self, consumer: str, owed: Sequence[Owed], started_at: datetime, duration: timedelta
    ) -> None:
        """Remove the deliveries and log their attempts, in one statement."""
        ids = uuid_array(delivery.event_id for delivery in owed)
        self._transaction.run(SETTLE, (consumer, ids, started_at, duration))

    def fail(self, attempts: Sequence[FailedAttempt]) -> None:
        """Log attempts that failed."""
        record_failures(self._transaction.connection, attempts)

    def release(self, consumer: str, event_ids: Sequence[UUID]) -> None:
        """Make deliveries due again now."""
        self._transaction.run(RELEASE, (consumer, uuid_array(event_ids)))

    def postpone(self, consumer: str, event_ids: Sequence[UUID], reason: str) -> None:
        """Make deliveries due again in a minute."""
        ids = uuid_array(event_ids)
        self._transaction.run(POSTPONE, (POSTPONED_FOR, reason, consumer, ids))
