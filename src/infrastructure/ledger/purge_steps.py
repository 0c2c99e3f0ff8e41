"""The steps of a purge: finding the next old rows, and removing them."""

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from application.ports.purge import Removed

# The functions of revision 0010: they take the lock of purges, and leave what is outstanding.
EVENTS: Final = text("""
    SELECT after, after_id, looked_at, removed FROM kratos_sync.purge_events(
        :before, CAST(:after AS timestamptz), CAST(:after_id AS uuid), :most, :remove)
""")
ATTEMPTS: Final = text("""
    SELECT after, looked_at, removed, any_old, any_young FROM kratos_sync.purge_attempts(
        :before, CAST(:after AS bigint), :most, :remove)
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

    _after: datetime | str | None = FIRST_TIME
    _after_id: UUID | None = FIRST_ID

    def take(self, connection: Connection, remove: bool) -> Step:
        """Take the next events of which nothing is outstanding."""
        parameters = {"after": self._after, "after_id": self._after_id, "remove": remove}
        fixed = {"before": self._before, "most": self._most}
        row = connection.execute(EVENTS, {**parameters, **fixed}).one()
        self._after, self._after_id, looked_at, removed = row
        return Step(Removed(events=removed), last=looked_at < self._most)


class AttemptSteps(PurgeSteps):
    """Attempts in the order of their ids, which is nearly that of time."""

    _after: int | None = 0

    def take(self, connection: Connection, remove: bool) -> Step:
        """Take the next attempts at events of which nothing is outstanding."""
        parameters = {"after": self._after, "before": self._before, "most": self._most}
        row = connection.execute(ATTEMPTS, {**parameters, "remove": remove}).one()
        self._after, looked_at, removed, any_old, any_young = row
        # Times are by workers' clocks: those yet to come say nothing of what comes after them.
        last = looked_at < self._most or (any_young and not any_old)
        return Step(Removed(attempts=removed), last)
