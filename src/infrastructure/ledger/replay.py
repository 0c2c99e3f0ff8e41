"""Recorded events, redelivered to one consumer."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from kratos_sync.application.ports.position import Position
from kratos_sync.application.ports.replay import EventRange, Step
from kratos_sync.infrastructure.ledger.dead_letters import conditions_of
from kratos_sync.infrastructure.ledger.event_search import (
    ORIGIN,
    outcome_conditions,
    outcome_parameters,
)
from kratos_sync.infrastructure.ledger.purge import hold_off_purges
from kratos_sync.infrastructure.ledger.snapshot import snapshot, time_of_ledger
from kratos_sync.infrastructure.postgres.engine import BY_THE_INDEX, translate_errors

MOST_READ: Final = 5_000
"""How many events a step reads to find those that are wanted."""
# Years of history take long to count.
COUNT_TIMEOUT: Final = text("SET LOCAL statement_timeout = '5min'")

ORIGIN_NAMES: Final = ("source", "hook", "trace_id")
# Erased events are left out.
_IS_WANTED: Final = "e.name = ANY(:names) AND e.erased_at IS NULL"
_COLUMNS: Final = (
    "id, subject, name, recorded_at, erased_at, footprint, source, hook, trace_context"
)
# A few events that an index leads to, in place of all in the range.
_OF_ONE: Final = "e.subject = :identity_id"
_OF_IDS: Final = "e.id = ANY(:event_ids)"
_OF_DEAD: Final = """
    e.id IN (SELECT d.event_id FROM kratos_sync.deliveries d WHERE {conditions})
"""
# Of more the log is read, and these are looked for in it.
_FEW_DEAD: Final = """
    SELECT count(*) <= :few FROM (
        SELECT FROM kratos_sync.deliveries d WHERE {conditions} LIMIT :few + 1) AS dead
"""
COUNT: Final = """
    SELECT count(*) FROM kratos_sync.events e
    WHERE e.recorded_at >= :begin AND e.recorded_at < :end AND {conditions}
"""

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

_READ: Final = f"""
    WITH read AS MATERIALIZED (
        SELECT {_COLUMNS} FROM kratos_sync.events
        WHERE recorded_at < :end AND (recorded_at, id) > (:after, :after_id)
        ORDER BY recorded_at, id
        LIMIT :read
"""  # noqa: S608  # every part is ours
_READ_FEW: Final = f"""
    WITH few AS MATERIALIZED (
        SELECT {_COLUMNS} FROM kratos_sync.events e
        WHERE {{few}} AND recorded_at < :end AND (recorded_at, id) > (:after, :after_id)
    ), read AS MATERIALIZED (
        SELECT * FROM few ORDER BY recorded_at, id LIMIT :read
"""  # noqa: S608  # every part is ours
# The next step goes on after the last event that was wanted, or after the last that was read.
_REDELIVER: Final = """
    ), wanted AS MATERIALIZED (
        SELECT id, subject, recorded_at, footprint FROM read e
        WHERE {conditions}
        ORDER BY recorded_at, id
        LIMIT :most
    ), stop AS (
        SELECT recorded_at, id FROM wanted ORDER BY recorded_at, id LIMIT 1 OFFSET :most - 1
    ), redelivered AS (
        INSERT INTO kratos_sync.deliveries (event_id, consumer, subject, footprint, ordered)
        SELECT id, :receiver, subject, footprint, EXISTS (
            SELECT FROM kratos_sync.subscriptions WHERE consumer = :receiver AND ordered)
        FROM wanted
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM redelivered), (SELECT count(*) FROM wanted),
           coalesce((SELECT recorded_at FROM stop), recorded_at),
           coalesce((SELECT id FROM stop), id)
    FROM read ORDER BY recorded_at DESC, id DESC LIMIT 1
"""


class PostgresRecordedEvents:
    """The RecordedEvents port; pages by time and id, so that every step costs the same."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        return time_of_ledger(self._engine)

    def count(self, wanted: EventRange) -> int:
        with snapshot(self._engine) as connection:
            connection.execute(COUNT_TIMEOUT)
            few, conditions, parameters = _narrowed(connection, wanted)
            statement = text(COUNT.format(conditions=" AND ".join([*few, *conditions])))
            counted: int = connection.execute(statement, parameters).scalar_one()
            return counted

    def in_flight(self, consumer: str, most: int) -> int:
        with translate_errors(), self._engine.connect() as connection:
            parameters = {"consumer": consumer, "most": most}
            counted: int = connection.execute(IN_FLIGHT, parameters).scalar_one()
            return counted

    def redeliver(self, wanted: EventRange, after: Position | None, most: int) -> Step:
        place = after or Position(wanted.since, UUID(int=0))
        with translate_errors(), self._engine.begin() as connection:
            hold_off_purges(connection)
            connection.execute(BY_THE_INDEX)
            few, conditions, parameters = _narrowed(connection, wanted)
            parameters |= {
                "after": place.recorded_at,
                "after_id": place.event_id,
                "read": max(MOST_READ, most),
                "most": most,
            }
            read = _READ_FEW.format(few=" AND ".join(few)) if few else _READ
            statement = text(read + _REDELIVER.format(conditions=" AND ".join(conditions)))
            row = connection.execute(statement, parameters).one_or_none()
        if row is None:
            return Step(0, 0, None)
        replayed, selected, recorded_at, event_id = row
        return Step(replayed, selected - replayed, Position(recorded_at, event_id))


def _narrowed(
    connection: Connection, wanted: EventRange
) -> tuple[list[str], list[str], dict[str, object]]:
    """Conditions that an index leads to a few events by, others, and their parameters."""
    parameters: dict[str, object] = {
        **outcome_parameters(wanted.outcome, wanted.of_consumer),
        **{name: getattr(wanted, name) for name in ORIGIN_NAMES},
        "receiver": wanted.consumer,
        "begin": wanted.since,
        "end": wanted.until,
        "identity_id": wanted.identity_id,
        "names": list(wanted.names),
        "event_ids": list(wanted.event_ids),
    }
    few = [_OF_ONE] if wanted.identity_id else []
    if wanted.event_ids:
        few.append(_OF_IDS)
    others = [
        _IS_WANTED,
        *(ORIGIN[name] for name in ORIGIN_NAMES if getattr(wanted, name)),
        *outcome_conditions(wanted.outcome, wanted.of_consumer),
    ]
    if wanted.dead is not None:
        conditions, of_dead = conditions_of(wanted.dead)
        parameters |= of_dead
        count = text(_FEW_DEAD.format(conditions=conditions))
        is_few = connection.execute(count, {**of_dead, "few": MOST_READ}).scalar_one()
        (few if is_few else others).append(_OF_DEAD.format(conditions=conditions))
    return few, others, parameters
