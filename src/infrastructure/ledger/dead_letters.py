"""The dead letters, as they stand in the ledger."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Engine, text

from application.ports.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterGroups,
    DeliveredEvent,
)
from infrastructure.ledger.dead_letter_filter import EXCEPTION, filled
from infrastructure.ledger.history import deliveries_of
from infrastructure.ledger.snapshot import snapshot

# Ids are made in the order of time, and as text they have a largest: it is the newest event.
GROUPS: Final = f"""
    SELECT consumer, exception, shape, dead_letters, first_failed_at, last_failed_at, example,
           (SELECT last_error FROM kratos_sync.deliveries
            WHERE event_id = example AND consumer = grouped.consumer),
           in_all, groups_in_all
    FROM (SELECT d.consumer, {EXCEPTION} AS exception, d.error_shape AS shape,
                 count(*) AS dead_letters, min(d.failed_at) AS first_failed_at,
                 max(d.failed_at) AS last_failed_at,
                 CAST(max(CAST(d.event_id AS text) COLLATE "C") AS uuid) AS example,
                 CAST(sum(count(*)) OVER () AS bigint) AS in_all,
                 count(*) OVER () AS groups_in_all
          FROM kratos_sync.deliveries d
          WHERE {{conditions}}
          GROUP BY 1, 2, 3
          ORDER BY dead_letters DESC, 1, 2, 3
          LIMIT :most) AS grouped
"""  # noqa: S608  # every part is ours

NEWEST: Final = f"""
    SELECT d.event_id, d.consumer,
           (SELECT e.name FROM kratos_sync.events e WHERE e.id = d.event_id),
           d.subject, d.attempts, d.failed_at, {EXCEPTION}, d.error_shape, d.last_error
    FROM (SELECT * FROM kratos_sync.deliveries d
          WHERE {{conditions}}
          ORDER BY d.failed_at DESC, d.event_id DESC, d.consumer
          LIMIT :most) AS d
    ORDER BY d.failed_at DESC, d.event_id DESC, d.consumer
"""  # noqa: S608  # every part is ours

COUNT: Final = "SELECT count(*) FROM kratos_sync.deliveries d WHERE {conditions}"

EVENT = text("""
    SELECT id, name, subject, source, occurred_at, recorded_at, CAST(payload AS text) AS payload,
           erased_at
    FROM kratos_sync.events WHERE id = :event_id
""")


class PostgresDeadLetters:
    """The dead letters port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        """Ask the database for the time."""
        with snapshot(self._engine) as connection:
            now: datetime = connection.execute(text("SELECT now()")).scalar_one()
            return now

    def groups(self, wanted: DeadLetterFilter, most: int) -> DeadLetterGroups:
        """Group them in one statement; the largest group comes first."""
        statement, parameters = filled(GROUPS, wanted)
        with snapshot(self._engine) as connection:
            rows = connection.execute(statement, {**parameters, "most": most}).all()
        groups = tuple(DeadLetterGroup(*row[:-2]) for row in rows)
        in_all, groups_in_all = rows[0][-2:] if rows else (0, 0)
        return DeadLetterGroups(in_all, groups_in_all, groups)

    def count(self, wanted: DeadLetterFilter) -> int:
        """Count them by the index."""
        with snapshot(self._engine) as connection:
            counted: int = connection.execute(*filled(COUNT, wanted)).scalar_one()
            return counted

    def newest(self, wanted: DeadLetterFilter, most: int) -> tuple[DeadLetter, ...]:
        """Read them in one statement."""
        statement, parameters = filled(NEWEST, wanted)
        with snapshot(self._engine) as connection:
            rows = connection.execute(statement, {**parameters, "most": most})
            return tuple(DeadLetter(*row) for row in rows)

    def event(self, event_id: UUID) -> DeliveredEvent | None:
        """Read the event and its deliveries at one moment."""
        with snapshot(self._engine) as connection:
            row = connection.execute(EVENT, {"event_id": event_id}).one_or_none()
            if row is None:
                return None
            deliveries = deliveries_of(connection, [event_id])
        return DeliveredEvent(
            row.id,
            row.name,
            row.subject,
            row.source,
            row.occurred_at,
            row.recorded_at,
            row.payload,
            deliveries.get(event_id, ()),
            row.erased_at,
        )
