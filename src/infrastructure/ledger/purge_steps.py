"""The steps of a purge: finding the next old rows, and removing them."""

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from application.ports.purge import Removed
from infrastructure.binary_arrays import uuid_array

# OFFSET 0: looked up for each row; else the planner may read all deliveries at every step.
FIND_EVENTS: Final = text("""
    WITH oldest AS MATERIALIZED (
        SELECT recorded_at, id FROM kratos_sync.events
        WHERE recorded_at < :before
          AND (recorded_at, id) > (CAST(:after AS timestamptz), CAST(:after_id AS uuid))
        ORDER BY recorded_at, id
        LIMIT :most
    )
    SELECT recorded_at, id,
           EXISTS (SELECT FROM kratos_sync.deliveries d WHERE d.event_id = oldest.id OFFSET 0)
    FROM oldest ORDER BY recorded_at, id
""")

REMOVE_EVENTS: Final = text("""
    DELETE FROM kratos_sync.events WHERE id = ANY(CAST(:ids AS uuid[]))
""")

FIND_ATTEMPTS: Final = text("""
    WITH oldest AS MATERIALIZED (
        SELECT id, event_id, started_at FROM kratos_sync.attempts
        WHERE id > :after
        ORDER BY id
        LIMIT :most
    )
    SELECT id, started_at < :before,
           started_at BETWEEN :before AND now() + CAST('1 day' AS interval),
           EXISTS (SELECT FROM kratos_sync.deliveries d WHERE d.event_id = oldest.event_id OFFSET 0)
    FROM oldest ORDER BY id
""")

REMOVE_ATTEMPTS: Final = text("""
    DELETE FROM kratos_sync.attempts WHERE id = ANY(CAST(:ids AS bigint[]))
""")

FIRST_TIME: Final = "-infinity"
FIRST_ID: Final = UUID(int=0)


class Step(NamedTuple):
    """What a step did: how many rows went, or would go, and whether none are left to look at."""

    removed: Removed
    last: bool


class PurgeSteps(ABC):
    """Walks the rows of one table that may be old, from the oldest on, and none of them twice."""

    def __init__(self, before: datetime, most: int) -> None:
        self._before = before
        self._most = most

    @abstractmethod
    def take(self, connection: Connection, remove: bool) -> Step:
        """Take the next step, in the connection's transaction, which holds the purge's lock."""


class EventSteps(PurgeSteps):
    """Events in the order in which they were recorded."""

    _after: datetime | str = FIRST_TIME
    _after_id = FIRST_ID

    def take(self, connection: Connection, remove: bool) -> Step:
        """Take the next events of which nothing is outstanding."""
        parameters = {"after": self._after, "after_id": self._after_id, "before": self._before}
        rows = connection.execute(FIND_EVENTS, {**parameters, "most": self._most}).all()
        if not rows:
            return Step(Removed(), last=True)
        self._after, self._after_id, _ = rows[-1]
        found = [event_id for _, event_id, owed in rows if not owed]
        if remove:
            connection.execute(REMOVE_EVENTS, {"ids": uuid_array(found)})
        return Step(Removed(events=len(found)), last=len(rows) < self._most)


class AttemptSteps(PurgeSteps):
    """Attempts in the order of their ids, which is nearly that of time."""

    _after = 0

    def take(self, connection: Connection, remove: bool) -> Step:
        """Take the next attempts at events of which nothing is outstanding."""
        parameters = {"after": self._after, "before": self._before, "most": self._most}
        rows = connection.execute(FIND_ATTEMPTS, parameters).all()
        any_old, any_young = any(row[1] for row in rows), any(row[2] for row in rows)
        # Times are by workers' clocks: those yet to come say nothing of what comes after them.
        if not rows or (any_young and not any_old):
            return Step(Removed(), last=True)
        self._after = rows[-1][0]
        found = [attempt_id for attempt_id, old, _, owed in rows if old and not owed]
        if remove:
            connection.execute(REMOVE_ATTEMPTS, {"ids": found})
        return Step(Removed(attempts=len(found)), last=len(rows) < self._most)
