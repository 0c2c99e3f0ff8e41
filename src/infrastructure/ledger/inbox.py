"""The inbox: no delivery row, nothing to do."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from application.ports.unit_of_work import Owed
from infrastructure.transaction import Transaction

OPEN = text("""
    SELECT e.id AS event_id, d.attempts + 1 AS attempt, e.name, e.subject, e.occurred_at,
           e.payload::text AS payload, e.trace_context AS traceparent
    FROM kratos_sync.deliveries d
    JOIN kratos_sync.events e ON e.id = d.event_id
    WHERE d.consumer = :consumer AND d.event_id = ANY(:event_ids) AND d.failed_at IS NULL
      AND (d.leased OR d.due_at <= now())
    ORDER BY d.event_id
    FOR UPDATE OF d SKIP LOCKED
""")

SETTLE = text("""
    WITH settled AS (
        DELETE FROM kratos_sync.deliveries
        WHERE consumer = :consumer AND event_id = ANY(:event_ids)
        RETURNING event_id, consumer, attempts + 1 AS number
    )
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT event_id, consumer, number, 'succeeded', :started_at, :duration FROM settled
""")

POSTPONE = text("""
    UPDATE kratos_sync.deliveries
    SET due_at = now() + :delay, leased = false, last_error = :reason
    WHERE consumer = :consumer AND event_id = ANY(:event_ids)
""")

# A release that knows the event may be a deploy away; nobody waits for it meanwhile.
POSTPONED_FOR = timedelta(minutes=1)


class PostgresInbox:
    """The inbox port, in one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def open(self, consumer: str, event_ids: Sequence[UUID]) -> list[Owed]:
        """Lock and load what is owed, in one statement."""
        parameters = {"consumer": consumer, "event_ids": list(event_ids)}
        owed = [Owed(**row) for row in self._transaction.execute(OPEN, parameters).mappings()]
        self._transaction.subjects = tuple({delivery.subject for delivery in owed})
        return owed

    def settle(
        self, consumer: str, owed: Sequence[Owed], started_at: datetime, duration: timedelta
    ) -> None:
        """Remove the deliveries and log their attempts, in one statement."""
        parameters = {
            "consumer": consumer,
            "event_ids": [delivery.event_id for delivery in owed],
            "started_at": started_at,
            "duration": duration,
        }
        self._transaction.execute(SETTLE, parameters)

    def postpone(self, consumer: str, event_ids: Sequence[UUID], reason: str) -> None:
        """Make deliveries due again in a minute."""
        parameters = {
            "consumer": consumer,
            "event_ids": list(event_ids),
            "reason": reason,
            "delay": POSTPONED_FOR,
        }
        self._transaction.execute(POSTPONE, parameters)
