"""Removing old events and attempts, a little at a time."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import uniform
from threading import Event
from time import monotonic
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.application.pipeline.logging import where
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.purge import (
    MOST_CLOCK_DIFFERENCE,
    AnotherPurge,
    ClocksDiffer,
    PastPurge,
    Purge,
    PurgeReport,
    Removed,
    Retention,
)
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.postgres.engine import how_far_ahead, translate_errors

# Any number does, as long as nothing else in the database takes advisory locks on it.
PURGE_LOCK: Final = 5_720_684_118

LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")
LOCK_SHARED: Final = text("SELECT pg_advisory_xact_lock_shared(:key)")


def lock_purges(connection: Connection) -> None:
    """Let nobody else purge until this transaction ends, nor owe anything that was recorded before.

    What the next statement sees is then all that is owed. Waits for those who hold it, for the
    length of a step; raises sqlalchemy.exc.OperationalError when they take too long.
    """
    connection.execute(LOCK, {"key": PURGE_LOCK})


def hold_off_purges(connection: Connection) -> None:
    """Let nobody purge until this transaction ends; call it first, before owing old events again.

    Else one may be removed between being read and being owed. Waits and raises as above.
    """
    connection.execute(LOCK_SHARED, {"key": PURGE_LOCK})


GONE: Final = timedelta(minutes=2)
"""A purge that took no step for so long is gone; steps and the rests between them are shorter."""
KEPT: Final = 1_000

# A time to come is by a clock that was ahead, and is not believed.
BEGIN: Final = text("""
    INSERT INTO kratos_sync.purges (started_at)
    SELECT clock_timestamp() WHERE NOT EXISTS (
        SELECT FROM kratos_sync.purges
        WHERE ended_at IS NULL
          AND seen_at BETWEEN clock_timestamp() - :gone AND clock_timestamp()
    )
    RETURNING id
""")

ADD: Final = text("""
    UPDATE kratos_sync.purges
    SET events = events + :events, attempts = attempts + :attempts, seen_at = clock_timestamp()
    WHERE id = :id AND id = (SELECT max(id) FROM kratos_sync.purges)
""")

END: Final = text("UPDATE kratos_sync.purges SET ended_at = clock_timestamp() WHERE id = :id")
FORGET: Final = text("DELETE FROM kratos_sync.purges WHERE id <= :id - :kept")

LAST: Final = text("""
    SELECT started_at, ended_at, events, attempts FROM kratos_sync.purges ORDER BY id DESC LIMIT 1
""")

IS_DUE: Final = text("""
    SELECT NOT EXISTS (
        SELECT FROM kratos_sync.purges
        WHERE started_at BETWEEN clock_timestamp() - :every AND clock_timestamp()
    )
""")


class PurgeEntry(NamedTuple):
    """The line of the purge that runs here."""

    id: int

    def add(self, connection: Connection, removed: Removed) -> None:
        """Add what a step removes, in its transaction. Raises AnotherPurge if one took over."""
        parameters = {"id": self.id, "events": removed.events, "attempts": removed.attempts}
        if connection.execute(ADD, parameters).rowcount == 0:
            raise AnotherPurge("another purge has taken over")

    def end(self, connection: Connection) -> None:
        """Note that it is over, and forget the oldest of many purges."""
        connection.execute(END, {"id": self.id})
        connection.execute(FORGET, {"id": self.id, "kept": KEPT})


def begin(connection: Connection) -> PurgeEntry:
    """Begin a purge, in a transaction of its own. Raises AnotherPurge while one is at work."""
    lock_purges(connection)
    entry = connection.execute(BEGIN, {"gone": GONE}).scalar_one_or_none()
    if entry is None:
        raise AnotherPurge("another purge is at work")
    return PurgeEntry(entry)


def last_purge(connection: Connection) -> PastPurge | None:
    """The newest purge; None before the first."""
    row = connection.execute(LAST).one_or_none()
    if row is None:
        return None
    return PastPurge(row.started_at, row.ended_at, Removed(row.events, row.attempts))


def is_due(connection: Connection, every: timedelta) -> bool:
    """Whether no purge began since so long ago; one at a time to come does not count."""
    due: bool = connection.execute(IS_DUE, {"every": every}).scalar_one()
    return due


FIRST_LOOK_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 60.0

log = structlog.get_logger()


class PurgeSchedule:
    """Purges when no purge began for so long, whoever made it; ``every`` is None for never.

    Many may run: each asks the ledger, about once a minute, and not all at once.
    """

    def __init__(
        self,
        purge: Purge,
        retention: Retention,
        every: timedelta | None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._purge = purge
        self._retention = retention
        self._every = every
        self._look_seconds = look_seconds

    def run(self, stopped: threading.Event) -> None:
        """Purge whenever it is due, until stopped; what goes wrong is logged, and tried again."""
        pause = FIRST_LOOK_SECONDS
        while self._every and not stopped.wait(pause * uniform(0.5, 1)):  # noqa: S311
            pause = self._look_seconds
            try:
                if self._purge.is_due(self._every):
                    self._run_once(stopped)
            except AnotherPurge as error:
                log.info("purge_left_to_another", reason=str(error))
            except (LedgerUnavailable, ClocksDiffer) as error:
                log.warning("purge_abandoned", reason=str(error))
            except (ConcurrencyConflict, SQLAlchemyError, psycopg.Error) as error:
                log.warning("purge_abandoned", error=type(error).__name__, at=where(error))

    def _run_once(self, stopped: threading.Event) -> None:
        report = self._purge.run(self._retention, stopped, lambda _: None)
        if report.removed != Removed():
            log.info(
                "purged",
                events=report.removed.events,
                attempts=report.removed.attempts,
                seconds=round(report.took.total_seconds(), 3),
                completed=report.completed,
            )


# The functions take the lock of purges, and leave what is outstanding.
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


MOST_ROWS: Final = 2_000
"""How many rows a step looks at: it takes some hundredths of a second."""
REST: Final = 2.0
"""How many times as long as a step the rest after it takes."""
LONGEST_REST_SECONDS: Final = 10.0

# A crash may undo the last steps, with the count of them; nobody waits for a disk meanwhile.
UNHURRIED: Final = text("SET LOCAL synchronous_commit = off")
NOW: Final = text("SELECT now()")

Told = Callable[[Removed], None]
TakeStep = Callable[[Connection, Removed], None]


class PostgresPurge:
    """The purge port."""

    def __init__(self, engine: Engine, most_rows: int = MOST_ROWS) -> None:
        self._engine = engine
        self._most_rows = most_rows

    def run(self, retention: Retention, stopped: Event, told: Told) -> PurgeReport:
        """Remove step by step; between two steps the database rests.

        Raises AnotherPurge, ClocksDiffer, LedgerUnavailable, ConcurrencyConflict or
        sqlalchemy.exc.DBAPIError.
        """
        with self._transaction() as connection:
            _require_one_time(connection)
            entry = begin(connection)
        try:
            return self._walk(retention, stopped, told, entry.add, remove=True)
        finally:
            with self._transaction() as connection:
                entry.end(connection)

    def preview(self, retention: Retention, stopped: Event, told: Told) -> PurgeReport:
        """Count in the same steps, without a rest.

        Raises ClocksDiffer, LedgerUnavailable, ConcurrencyConflict or sqlalchemy.exc.DBAPIError.
        """
        return self._walk(retention, stopped, told, lambda *_: None, remove=False)

    def is_due(self, every: timedelta) -> bool:
        """Ask the ledger when the last one began. Raises as ``run`` does."""
        with self._transaction() as connection:
            return is_due(connection, every)

    def _walk(
        self, retention: Retention, stopped: Event, told: Told, note: TakeStep, *, remove: bool
    ) -> PurgeReport:
        began, removed = monotonic(), Removed()
        for steps in self._tables(retention):
            last = False
            while not last:
                if stopped.is_set():
                    return PurgeReport(removed, _since(began), completed=False)
                step_began = monotonic()
                with self._transaction() as connection:
                    if remove:
                        lock_purges(connection)
                        connection.execute(UNHURRIED)
                    part, last = steps.take(connection, remove)
                    note(connection, part)
                removed = removed.plus(part)
                told(removed)
                if remove and not last:
                    rest = REST * (monotonic() - step_began)
                    stopped.wait(min(rest, LONGEST_REST_SECONDS))
        return PurgeReport(removed, _since(began), completed=True)

    def _tables(self, retention: Retention) -> Iterator[PurgeSteps]:
        with self._transaction() as connection:
            _require_one_time(connection)
            now = connection.execute(NOW).scalar_one()
        if retention.events is not None:
            yield EventSteps(now - retention.events, self._most_rows)
        if retention.attempts is not None:
            yield AttemptSteps(now - retention.attempts, self._most_rows)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with translate_errors(), self._engine.begin() as connection:
            yield connection


def _require_one_time(connection: Connection) -> None:
    ahead = how_far_ahead(connection)
    if abs(ahead) >= MOST_CLOCK_DIFFERENCE:
        how = "ahead of" if ahead > timedelta() else "behind"
        raise ClocksDiffer(
            f"the database's clock is {abs(ahead).total_seconds():,.0f} s {how} this machine's:"
            " set the one that is wrong"
        )


def _since(began: float) -> timedelta:
    return timedelta(seconds=monotonic() - began)
