"""Owing a consumer what the log of events holds already."""

from dataclasses import asdict
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Engine, text

from kratos_sync.application.ports.replay import EventRange, Position, Step
from kratos_sync.infrastructure.ledger.purge import hold_off_purges
from kratos_sync.infrastructure.ledger.snapshot import snapshot
from kratos_sync.infrastructure.postgres.engine import BY_THE_INDEX, translate_errors

MOST_READ: Final = 5_000
"""Events that one step looks through for those with a wanted name."""
# Whoever asks for years of history waits for the count.
COUNT_TIMEOUT: Final = text("SET LOCAL statement_timeout = '5min'")

COUNT = text("""
    SELECT count(*) FROM kratos_sync.events
    WHERE recorded_at >= :since AND recorded_at < :until AND name = ANY(:names)
      AND erased_at IS NULL
""")
COUNT_OF_ONE = text("""
    SELECT count(*) FROM kratos_sync.events
    WHERE subject = :identity_id AND recorded_at >= :since AND recorded_at < :until
      AND name = ANY(:names) AND erased_at IS NULL
""")

IN_HAND = text("""
    SELECT count(*) FROM (
        (SELECT FROM kratos_sync.deliveries
         WHERE consumer = :consumer AND failed_at IS NULL AND NOT leased AND due_at <= now()
         LIMIT :most)
        UNION ALL
        (SELECT FROM kratos_sync.deliveries
         WHERE consumer = :consumer AND failed_at IS NULL AND leased
         LIMIT :most)
        LIMIT :most) AS in_flight
""")

_READ: Final = """
    WITH read AS MATERIALIZED (
        SELECT id, subject, name, recorded_at, erased_at, footprint FROM kratos_sync.events
        WHERE recorded_at < :until AND (recorded_at, id) > (:after, :after_id)
        ORDER BY recorded_at, id
        LIMIT :read
"""
_READ_OF_ONE: Final = """
    WITH of_one AS MATERIALIZED (
        SELECT id, subject, name, recorded_at, erased_at, footprint FROM kratos_sync.events
        WHERE subject = :identity_id AND recorded_at < :until
          AND (recorded_at, id) > (:after, :after_id)
    ), read AS MATERIALIZED (
        SELECT * FROM of_one ORDER BY recorded_at, id LIMIT :read
"""
# What was erased has nothing left to say. The next step goes on after the last event that was
# wanted, or after the last that was read.
_OWE: Final = """
    ), wanted AS MATERIALIZED (
        SELECT id, subject, recorded_at, footprint FROM read
        WHERE name = ANY(:names) AND erased_at IS NULL
        ORDER BY recorded_at, id
        LIMIT :most
    ), stop AS (
        SELECT recorded_at, id FROM wanted ORDER BY recorded_at, id LIMIT 1 OFFSET :most - 1
    ), owed AS (
        INSERT INTO kratos_sync.deliveries (event_id, consumer, subject, footprint)
        SELECT id, :consumer, subject, footprint FROM wanted
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM owed), (SELECT count(*) FROM wanted),
           coalesce((SELECT recorded_at FROM stop), recorded_at),
           coalesce((SELECT id FROM stop), id)
    FROM read ORDER BY recorded_at DESC, id DESC LIMIT 1
"""
OWE_AGAIN = text(_READ + _OWE)
OWE_AGAIN_OF_ONE = text(_READ_OF_ONE + _OWE)


class PostgresRecordedEvents:
    """The port of that name; pages by time and id, so that a step costs the same anywhere."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        """Ask the database for the time."""
        with snapshot(self._engine) as connection:
            now: datetime = connection.execute(text("SELECT now()")).scalar_one()
            return now

    def count(self, stretch: EventRange) -> int:
        """Count them one by one."""
        with snapshot(self._engine) as connection:
            connection.execute(COUNT_TIMEOUT)
            statement = COUNT_OF_ONE if stretch.identity_id else COUNT
            counted: int = connection.execute(statement, _parameters(stretch)).scalar_one()
            return counted

    def in_flight(self, consumer: str, most: int) -> int:
        """Count by the indexes that claims use."""
        with translate_errors(), self._engine.connect() as connection:
            parameters = {"consumer": consumer, "most": most}
            counted: int = connection.execute(IN_HAND, parameters).scalar_one()
            return counted

    def redeliver(self, stretch: EventRange, after: Position | None, most: int) -> Step:
        """Read, choose and owe in one statement."""
        place = after or Position(stretch.since, UUID(int=0))
        parameters = {
            **_parameters(stretch),
            "after": place.recorded_at,
            "after_id": place.event_id,
            "read": max(MOST_READ, most),
            "most": most,
        }
        statement = OWE_AGAIN_OF_ONE if stretch.identity_id else OWE_AGAIN
        with translate_errors(), self._engine.begin() as connection:
            hold_off_purges(connection)
            connection.execute(BY_THE_INDEX)
            row = connection.execute(statement, parameters).one_or_none()
        if row is None:
            return Step(0, 0, None)
        owed, wanted, recorded_at, event_id = row
        return Step(owed, wanted - owed, Position(recorded_at, event_id))


def _parameters(stretch: EventRange) -> dict[str, object]:
    given = {**asdict(stretch), "names": list(stretch.names)}
    return {name: value for name, value in given.items() if value is not None}
