"""Recorded events, redelivered to one consumer."""

from dataclasses import asdict
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Engine, text

from kratos_sync.application.ports.replay import EventRange, Position, Step
from kratos_sync.infrastructure.ledger.purge import hold_off_purges
from kratos_sync.infrastructure.ledger.snapshot import snapshot, time_of_ledger
from kratos_sync.infrastructure.postgres.engine import BY_THE_INDEX, translate_errors

MOST_READ: Final = 5_000
"""How many events a step reads to find those that are wanted."""
# Years of history take long to count.
COUNT_TIMEOUT: Final = text("SET LOCAL statement_timeout = '5min'")

# Erased events are left out.
_IS_WANTED: Final = """
    name = ANY(:names) AND erased_at IS NULL
    AND source = coalesce(CAST(:source AS text), source)
    AND hook IS NOT DISTINCT FROM coalesce(CAST(:hook AS text), hook)
    AND (CAST(:trace_id AS text) IS NULL OR split_part(trace_context, '-', 2) = :trace_id)
"""
COUNT, COUNT_OF_ONE = (
    text(f"""
        SELECT count(*) FROM kratos_sync.events
        WHERE recorded_at >= :since AND recorded_at < :until AND {_IS_WANTED} {of_one}
    """)  # noqa: S608  # every part is ours
    for of_one in ("", "AND subject = :identity_id")
)

IN_FLIGHT = text("""
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

_COLUMNS: Final = (
    "id, subject, name, recorded_at, erased_at, footprint, source, hook, trace_context"
)
_READ: Final = f"""
    WITH read AS MATERIALIZED (
        SELECT {_COLUMNS} FROM kratos_sync.events
        WHERE recorded_at < :until AND (recorded_at, id) > (:after, :after_id)
        ORDER BY recorded_at, id
        LIMIT :read
"""  # noqa: S608  # every part is ours
_READ_OF_ONE: Final = f"""
    WITH of_one AS MATERIALIZED (
        SELECT {_COLUMNS} FROM kratos_sync.events
        WHERE subject = :identity_id AND recorded_at < :until
          AND (recorded_at, id) > (:after, :after_id)
    ), read AS MATERIALIZED (
        SELECT * FROM of_one ORDER BY recorded_at, id LIMIT :read
"""  # noqa: S608  # every part is ours
# The next step goes on after the last event that was wanted, or after the last that was read.
_REDELIVER: Final = f"""
    ), wanted AS MATERIALIZED (
        SELECT id, subject, recorded_at, footprint FROM read
        WHERE {_IS_WANTED}
        ORDER BY recorded_at, id
        LIMIT :most
    ), stop AS (
        SELECT recorded_at, id FROM wanted ORDER BY recorded_at, id LIMIT 1 OFFSET :most - 1
    ), redelivered AS (
        INSERT INTO kratos_sync.deliveries (event_id, consumer, subject, footprint, ordered)
        SELECT id, :consumer, subject, footprint, EXISTS (
            SELECT FROM kratos_sync.subscriptions WHERE consumer = :consumer AND ordered)
        FROM wanted
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM redelivered), (SELECT count(*) FROM wanted),
           coalesce((SELECT recorded_at FROM stop), recorded_at),
           coalesce((SELECT id FROM stop), id)
    FROM read ORDER BY recorded_at DESC, id DESC LIMIT 1
"""  # noqa: S608  # every part is ours
REDELIVER = text(_READ + _REDELIVER)
REDELIVER_OF_ONE = text(_READ_OF_ONE + _REDELIVER)


class PostgresRecordedEvents:
    """The RecordedEvents port; pages by time and id, so that every step costs the same."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        return time_of_ledger(self._engine)

    def count(self, wanted: EventRange) -> int:
        with snapshot(self._engine) as connection:
            connection.execute(COUNT_TIMEOUT)
            statement = COUNT_OF_ONE if wanted.identity_id else COUNT
            counted: int = connection.execute(statement, _parameters(wanted)).scalar_one()
            return counted

    def in_flight(self, consumer: str, most: int) -> int:
        with translate_errors(), self._engine.connect() as connection:
            parameters = {"consumer": consumer, "most": most}
            counted: int = connection.execute(IN_FLIGHT, parameters).scalar_one()
            return counted

    def redeliver(self, wanted: EventRange, after: Position | None, most: int) -> Step:
        place = after or Position(wanted.since, UUID(int=0))
        parameters = {
            **_parameters(wanted),
            "after": place.recorded_at,
            "after_id": place.event_id,
            "read": max(MOST_READ, most),
            "most": most,
        }
        statement = REDELIVER_OF_ONE if wanted.identity_id else REDELIVER
        with translate_errors(), self._engine.begin() as connection:
            hold_off_purges(connection)
            connection.execute(BY_THE_INDEX)
            row = connection.execute(statement, parameters).one_or_none()
        if row is None:
            return Step(0, 0, None)
        replayed, selected, recorded_at, event_id = row
        return Step(replayed, selected - replayed, Position(recorded_at, event_id))


def _parameters(wanted: EventRange) -> dict[str, object]:
    return {**asdict(wanted), "names": list(wanted.names)}
