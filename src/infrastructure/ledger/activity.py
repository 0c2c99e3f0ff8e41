"""What happens at the moment, read from the newest rows of the ledger."""

from collections import defaultdict
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, text

from kratos_sync.application.ports.activity import (
    ActivityFilter,
    Counted,
    Position,
    SeenAttempt,
    SeenEvent,
)
from kratos_sync.application.ports.history import DECISIONS, error_type
from kratos_sync.infrastructure.ledger.snapshot import snapshot

MOST_READ: Final = 10_000
"""How many of the newest rows are searched at a time;"""
MOST_COUNTED: Final = 100_000
"""and how many are counted."""

POSITION: Final = text("""
    SELECT now(), coalesce((SELECT max(id) FROM kratos_sync.attempts), 0)
""")

COUNT_EVENTS: Final = text("""
    SELECT count(*) FROM (
        SELECT FROM kratos_sync.events WHERE recorded_at > :after AND recorded_at <= :until
        LIMIT :most
    ) AS new
""")

COUNT_ATTEMPTS: Final = text("""
    SELECT consumer, outcome, count(*) FROM (
        SELECT consumer, outcome FROM kratos_sync.attempts WHERE id > :after AND id <= :until
        LIMIT :most
    ) AS new
    GROUP BY consumer, outcome
""")

EVENTS: Final = text("""
    SELECT id, name, subject, source, recorded_at FROM (
        SELECT id, name, subject, source, recorded_at FROM kratos_sync.events
        WHERE recorded_at > :after
        ORDER BY recorded_at DESC, id DESC LIMIT :read
    ) AS newest
    WHERE name = coalesce(:event, name)
    ORDER BY recorded_at DESC, id DESC LIMIT :most
""")

ATTEMPTS: Final = text("""
    SELECT a.id, a.event_id, e.name, e.subject, a.consumer, a.number, a.outcome,
           a.started_at + a.duration, a.duration, a.error
    FROM (
        SELECT * FROM kratos_sync.attempts WHERE id > :after ORDER BY id DESC LIMIT :read
    ) AS a LEFT JOIN kratos_sync.events e ON e.id = a.event_id
    WHERE a.consumer = coalesce(:consumer, a.consumer)
      AND (CAST(:event AS text) IS NULL OR e.name = :event)
      AND (CAST(:outcomes AS text[]) = '{}' OR a.outcome = ANY(CAST(:outcomes AS text[])))
    ORDER BY a.id DESC LIMIT :most
""")


class PostgresActivity:
    """The Activity port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def position(self) -> Position:
        with snapshot(self._engine) as connection:
            return Position(*connection.execute(POSITION).one())

    def counted(self, after: Position, until: Position) -> Counted:
        times = {"after": after.at, "until": until.at, "most": MOST_COUNTED}
        ids = {"after": after.attempt, "until": until.attempt, "most": MOST_COUNTED}
        attempts: dict[str, dict[str, int]] = defaultdict(dict)
        with snapshot(self._engine) as connection:
            events: int = connection.execute(COUNT_EVENTS, times).scalar_one()
            for consumer, outcome, number in connection.execute(COUNT_ATTEMPTS, ids):
                attempts[consumer][outcome] = number
        return Counted(events, attempts)

    def events(self, after: datetime, wanted: ActivityFilter, most: int) -> list[SeenEvent]:
        asked = {"after": after, "event": wanted.event, "read": MOST_READ, "most": most}
        with snapshot(self._engine) as connection:
            return [SeenEvent(*row) for row in connection.execute(EVENTS, asked)]

    def attempts(self, after: int, wanted: ActivityFilter, most: int) -> list[SeenAttempt]:
        asked = {
            "after": after,
            "consumer": wanted.consumer,
            "event": wanted.event,
            "outcomes": list(wanted.outcomes),
            "read": MOST_READ,
            "most": most,
        }
        with snapshot(self._engine) as connection:
            return [
                SeenAttempt(*(*seen, _type_of(seen[6], error)))
                for *seen, error in connection.execute(ATTEMPTS, asked)
            ]


def _type_of(outcome: str, error: str | None) -> str | None:
    # What an operator decided on has a person's words in place of an error.
    return None if error is None or outcome in DECISIONS else error_type(error)
