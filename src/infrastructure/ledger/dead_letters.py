"""Dead letters: reading them, and what an operator decides about them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import starmap
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Engine, Row, TextClause, text

from kratos_sync.application.ports.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterGroups,
    DeliveredEvent,
)
from kratos_sync.application.ports.position import END, Position
from kratos_sync.infrastructure.ledger.history import deliveries_of
from kratos_sync.infrastructure.ledger.snapshot import snapshot, time_of_ledger
from kratos_sync.infrastructure.postgres.engine import BY_THE_INDEX, readable, translate_errors
from kratos_sync.infrastructure.postgres.json import storable

_CONDITIONS: Final = {
    "event_id": "d.event_id = :event_id",
    "consumer": "d.consumer = :consumer",
    # One look-up for each row; in a join the planner might read all events first.
    "event": "(SELECT e.name FROM kratos_sync.events e WHERE e.id = d.event_id) = :event",
    "exception": """
        right(d.error_type, length(CAST(:exception AS text)) + 1)
        IN (CAST(:exception AS text), '.' || CAST(:exception AS text))
    """,
    "since": "d.failed_at >= :since",
    # One in the future failed before a clock was set back.
    "until": "(d.failed_at <= :until OR d.failed_at > clock_timestamp())",
    "shape": "d.error_shape = :shape",
}
# Of a group the type is known in full: the index leads to it.
_OF_GROUP: Final = _CONDITIONS | {"exception": "d.error_type = :exception"}
_WITHOUT_SHAPE: Final = _OF_GROUP | {"shape": "coalesce(d.error_shape, '') = :shape"}


def conditions_of(wanted: DeadLetterFilter) -> tuple[str, dict[str, object]]:
    """The filter as conditions on ``kratos_sync.deliveries d``, and their parameters."""
    conditions = _CONDITIONS
    if wanted.shape is not None:
        conditions = _OF_GROUP if wanted.shape else _WITHOUT_SHAPE
    given = {name: getattr(wanted, name) for name in conditions}
    parameters = {name: value for name, value in given.items() if value is not None}
    clauses = ["d.failed_at IS NOT NULL", *(conditions[name] for name in parameters)]
    return " AND ".join(clauses), parameters


def with_filter(statement: str, wanted: DeadLetterFilter) -> tuple[TextClause, dict[str, object]]:
    """Put the filter in place of ``{conditions}``; returns the statement and its parameters."""
    conditions, parameters = conditions_of(wanted)
    return text(statement.format(conditions=conditions)), parameters


# Of a hundred thousand dead letters the index is read, and no row but the examples.
GROUPS: Final = """
    SELECT consumer, exception, shape, dead_letters, first_failed_at, last_failed_at,
           example.event_id, example.last_error, retries, in_all, groups_in_all
    FROM (SELECT d.consumer, d.error_type AS exception, d.error_shape AS shape,
                 count(*) AS dead_letters, min(d.failed_at) AS first_failed_at,
                 max(d.failed_at) AS last_failed_at, coalesce(sum(d.retries), 0) AS retries,
                 CAST(sum(count(*)) OVER () AS bigint) AS in_all,
                 count(*) OVER () AS groups_in_all
          FROM kratos_sync.deliveries d
          WHERE {conditions}
          GROUP BY 1, 2, 3
          ORDER BY dead_letters DESC, 1, 2, 3
          LIMIT :most OFFSET :skip) AS grouped
    CROSS JOIN LATERAL (
        SELECT d.event_id, d.last_error FROM kratos_sync.deliveries d
        WHERE {conditions} AND d.consumer = grouped.consumer
          AND d.failed_at = grouped.last_failed_at AND d.error_type = grouped.exception
          AND d.error_shape IS NOT DISTINCT FROM grouped.shape
        LIMIT 1) AS example
    ORDER BY dead_letters DESC, 1, 2, 3
"""

NEWEST: Final = """
    SELECT d.event_id, d.consumer,
           (SELECT e.name FROM kratos_sync.events e WHERE e.id = d.event_id),
           d.subject, d.attempts, d.failed_at, d.error_type, d.error_shape, d.last_error,
           coalesce(d.retries, 0)
    FROM (SELECT * FROM kratos_sync.deliveries d
          WHERE {conditions} AND (d.failed_at, d.event_id) < (:before_at, :before_id)
          ORDER BY d.failed_at DESC, d.event_id DESC, d.consumer
          LIMIT :most) AS d
    ORDER BY d.failed_at DESC, d.event_id DESC, d.consumer
"""

NOW: Final = text("SELECT now()")
COUNT: Final = "SELECT count(*) FROM kratos_sync.deliveries d WHERE {conditions}"

EVENT = text(f"""
    SELECT id, name, subject AS identity_id, source, {readable("occurred_at")} AS occurred_at,
           recorded_at, now() AS at,
           CAST(payload AS text) AS payload, erased_at, hook
    FROM kratos_sync.events WHERE id = :event_id
""")  # noqa: S608  # all of it is ours


class PostgresDeadLetters:
    """The DeadLetters port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        return time_of_ledger(self._engine)

    def groups(self, wanted: DeadLetterFilter, most: int, skip: int = 0) -> DeadLetterGroups:
        filtered, parameters = with_filter(GROUPS, wanted)
        with snapshot(self._engine) as connection:
            at = connection.execute(NOW).scalar_one()
            rows = connection.execute(filtered, {**parameters, "most": most, "skip": skip}).all()
        groups = tuple(DeadLetterGroup(*row[:-2]) for row in rows)
        in_all, groups_in_all = rows[0][-2:] if rows else (0, 0)
        return DeadLetterGroups(in_all, groups_in_all, groups, at)

    def count(self, wanted: DeadLetterFilter) -> int:
        ((counted,),) = self._read(COUNT, wanted)
        return int(counted)

    def newest(
        self, wanted: DeadLetterFilter, most: int, before: Position | None = None
    ) -> tuple[DeadLetter, ...]:
        at, event_id = before or END
        rows = self._read(NEWEST, wanted, most=most, before_at=at, before_id=event_id)
        return tuple(starmap(DeadLetter, rows))

    def _read(
        self, statement: str, wanted: DeadLetterFilter, **more: object
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        filtered, parameters = with_filter(statement, wanted)
        with snapshot(self._engine) as connection:
            return connection.execute(filtered, parameters | more).all()

    def event(self, event_id: UUID) -> DeliveredEvent | None:
        with snapshot(self._engine) as connection:
            row = connection.execute(EVENT, {"event_id": event_id}).mappings().one_or_none()
            if row is None:
                return None
            deliveries = deliveries_of(connection, [event_id])
        return DeliveredEvent(**row, deliveries=deliveries.get(event_id, ()))

    def consumers(self) -> list[str]:
        return _consumers(self._engine)


# From one name to the next by the index, however many rows each has.
CONSUMERS: Final = text("""
    WITH RECURSIVE named AS (
        (SELECT consumer FROM kratos_sync.deliveries WHERE failed_at IS NOT NULL
         ORDER BY consumer LIMIT 1)
        UNION ALL
        SELECT (SELECT d.consumer FROM kratos_sync.deliveries d
                WHERE d.failed_at IS NOT NULL AND d.consumer > named.consumer
                ORDER BY d.consumer LIMIT 1)
        FROM named WHERE named.consumer IS NOT NULL
    )
    SELECT consumer FROM named WHERE consumer IS NOT NULL
""")

# In the order of the index, each step after the one before: no step reads again what was done or
# is locked. A function of the schema decides, so that no role needs the right to settle deliveries.
_DECIDE: Final = """
    WITH seen AS MATERIALIZED (
        SELECT d.failed_at, d.event_id FROM kratos_sync.deliveries d
        WHERE {{conditions}} AND (d.failed_at, d.event_id) > (:after, :after_id)
        ORDER BY d.failed_at, d.event_id
        LIMIT :step
    )
    SELECT (SELECT kratos_sync.{function}(
                :consumer, array_agg(event_id), max(failed_at), :said) FROM seen),
           failed_at, event_id
    FROM seen ORDER BY failed_at DESC, event_id DESC LIMIT 1
"""
RETRY: Final = _DECIDE.format(function="retry_dead_letters")
DISCARD: Final = _DECIDE.format(function="discard_dead_letters")
BEFORE_ALL: Final = {"after": datetime.min.replace(tzinfo=UTC), "after_id": UUID(int=0)}


class PostgresDeadLetterDecisions:
    """The DeadLetterDecisions port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def retry(self, wanted: DeadLetterFilter, by: str, step: int) -> Iterator[int]:
        return self._decide(RETRY, f"Retried by {by}", wanted, step)

    def discard(self, wanted: DeadLetterFilter, by: str, reason: str, step: int) -> Iterator[int]:
        return self._decide(DISCARD, f"Discarded by {by}: {reason}", wanted, step)

    def _decide(
        self, statement: str, said: str, wanted: DeadLetterFilter, step: int
    ) -> Iterator[int]:
        fixed = {"said": storable(said), "step": step, **BEFORE_ALL}
        for consumer in [wanted.consumer] if wanted.consumer else _consumers(self._engine):
            of_one, parameters = with_filter(statement, replace(wanted, consumer=consumer))
            parameters |= fixed
            while True:
                with translate_errors(), self._engine.begin() as connection:
                    if wanted.event_id is None:
                        connection.execute(BY_THE_INDEX)
                    row = connection.execute(of_one, parameters).one_or_none()
                if row is None:
                    break
                done, parameters["after"], parameters["after_id"] = row
                yield done


def _consumers(engine: Engine) -> list[str]:
    with translate_errors(), engine.connect() as connection:
        return list(connection.execute(CONSUMERS).scalars())
