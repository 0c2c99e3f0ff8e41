"""Removing old events and attempts, step by step."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import uniform
from threading import Event
from time import monotonic
from typing import Final, NamedTuple, TypeAlias
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

DEAD_AFTER: Final = timedelta(minutes=2)
"""A purge without a step for so long was killed; steps and the rests between them are shorter."""
KEPT: Final = 1_000
"""How many purges the ledger remembers."""
MOST_ROWS: Final = 2_000
"""How many rows a step looks at: it takes some hundredths of a second."""
REST: Final = 2.0
"""The rest after a step, in multiples of what the step took."""
LONGEST_REST_SECONDS: Final = 10.0
FIRST_LOOK_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 60.0

# A time in the future was written by a clock that was ahead, and does not count.
BEGIN: Final = text("""
    INSERT INTO kratos_sync.purges (started_at)
    SELECT clock_timestamp() WHERE NOT EXISTS (
        SELECT FROM kratos_sync.purges
        WHERE ended_at IS NULL
          AND seen_at BETWEEN clock_timestamp() - :dead_after AND clock_timestamp()
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
# Functions of the schema: they take the lock, and keep what is pending.
EVENTS: Final = text("""
    SELECT after, after_id, looked_at, removed FROM kratos_sync.purge_events(
        :before, CAST(:after AS timestamptz), CAST(:after_id AS uuid), :most, :remove)
""")
ATTEMPTS: Final = text("""
    SELECT after, looked_at, removed, any_old, any_young FROM kratos_sync.purge_attempts(
        :before, CAST(:after AS bigint), :most, :remove)
""")
# A crash may undo the last steps, with the count of them; nobody waits for a disk meanwhile.
UNHURRIED: Final = text("SET LOCAL synchronous_commit = off")
NOW: Final = text("SELECT now()")

Told = Callable[[Removed], None]

log = structlog.get_logger()


def lock_purges(connection: Connection) -> None:
    """Keep purges, and deliveries of events recorded before, out until this transaction ends.

    The next statement sees all that is pending. Waits for whoever holds the lock, for the length of
    a step; raises sqlalchemy.exc.OperationalError when that takes too long.
    """
    connection.execute(LOCK, {"key": PURGE_LOCK})


def hold_off_purges(connection: Connection) -> None:
    """Keep purges out until this transaction ends; call it first, before redelivering old events.

    Else an event may be removed between being read and being redelivered. Waits and raises as
    ``lock_purges`` does.
    """
    connection.execute(LOCK_SHARED, {"key": PURGE_LOCK})


def begin(connection: Connection) -> int:
    """Record the beginning of a purge; returns its id. Raises AnotherPurge while one is running."""
    lock_purges(connection)
    purge_id: int | None = connection.execute(BEGIN, {"dead_after": DEAD_AFTER}).scalar()
    if purge_id is None:
        raise AnotherPurge("another purge is at work")
    return purge_id


def last_purge(connection: Connection) -> PastPurge | None:
    """The newest purge; None before the first."""
    row = connection.execute(LAST).one_or_none()
    if row is None:
        return None
    return PastPurge(row.started_at, row.ended_at, Removed(row.events, row.attempts))


class Step(NamedTuple):
    """How many rows a step removed, or would remove, and whether it was the last."""

    removed: Removed
    last: bool


class EventSteps:
    """Walks the events that are older than a time, in the order in which they were recorded."""

    def __init__(self, before: datetime, most: int) -> None:
        self._fixed = {"before": before, "most": most}
        self._after: datetime | str | None = "-infinity"
        self._after_id: UUID | None = UUID(int=0)

    def take(self, connection: Connection, remove: bool) -> Step:
        """Take the next events without pending deliveries."""
        place = {"after": self._after, "after_id": self._after_id, "remove": remove}
        row = connection.execute(EVENTS, {**self._fixed, **place}).one()
        self._after, self._after_id, looked_at, removed = row
        return Step(Removed(events=removed), last=looked_at < self._fixed["most"])


class AttemptSteps:
    """Walks the attempts in the order of their ids, which is nearly that of time."""

    def __init__(self, before: datetime, most: int) -> None:
        self._fixed = {"before": before, "most": most}
        self._after: int | None = 0

    def take(self, connection: Connection, remove: bool) -> Step:
        """Take the next attempts at events without pending deliveries."""
        place = {"after": self._after, "remove": remove}
        row = connection.execute(ATTEMPTS, {**self._fixed, **place}).one()
        self._after, looked_at, removed, any_old, any_young = row
        # Times are by workers' clocks: those in the future say nothing of what comes after them.
        last = looked_at < self._fixed["most"] or (any_young and not any_old)
        return Step(Removed(attempts=removed), last)


Steps: TypeAlias = EventSteps | AttemptSteps


class PostgresPurge:
    """The purge port."""

    def __init__(self, engine: Engine, most_rows: int = MOST_ROWS) -> None:
        self._engine = engine
        self._most_rows = most_rows

    def run(self, retention: Retention, stopped: Event, told: Told) -> PurgeReport:
        """Remove step by step; the database rests between two steps.

        Raises AnotherPurge, ClocksDiffer, LedgerUnavailable, ConcurrencyConflict or
        sqlalchemy.exc.DBAPIError.
        """
        now = self._now()
        with self._transaction() as connection:
            purge_id = begin(connection)
        try:
            return self._walk(retention, now, stopped, told, purge_id)
        finally:
            with self._transaction() as connection:
                connection.execute(END, {"id": purge_id})
                connection.execute(FORGET, {"id": purge_id, "kept": KEPT})

    def preview(self, retention: Retention, stopped: Event, told: Told) -> PurgeReport:
        """Count in the same steps, without rests.

        Raises ClocksDiffer, LedgerUnavailable, ConcurrencyConflict or sqlalchemy.exc.DBAPIError.
        """
        return self._walk(retention, self._now(), stopped, told, None)

    def is_due(self, every: timedelta) -> bool:
        """Ask the ledger when the last one began. Raises as ``run`` does."""
        with self._transaction() as connection:
            due: bool = connection.execute(IS_DUE, {"every": every}).scalar_one()
            return due

    def _now(self) -> datetime:
        """The database's time. Raises ClocksDiffer where it cannot be right."""
        with self._transaction() as connection:
            ahead = how_far_ahead(connection)
            now: datetime = connection.execute(NOW).scalar_one()
        if abs(ahead) >= MOST_CLOCK_DIFFERENCE:
            how = "ahead of" if ahead > timedelta() else "behind"
            raise ClocksDiffer(
                f"the database's clock is {abs(ahead).total_seconds():,.0f} s {how} this"
                " machine's: set the one that is wrong"
            )
        return now

    def _walk(
        self,
        retention: Retention,
        now: datetime,
        stopped: Event,
        told: Told,
        purge_id: int | None,
    ) -> PurgeReport:
        """Take all steps, and note in the purge's row what each removed; without one only count."""
        remove = purge_id is not None
        began, removed = monotonic(), Removed()
        for steps in self._tables(retention, now):
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
                    if remove and connection.execute(ADD, _row(purge_id, part)).rowcount == 0:
                        raise AnotherPurge("another purge has taken over")
                removed = removed.plus(part)
                told(removed)
                if remove and not last:
                    rest = REST * (monotonic() - step_began)
                    stopped.wait(min(rest, LONGEST_REST_SECONDS))
        return PurgeReport(removed, _since(began), completed=True)

    def _tables(self, retention: Retention, now: datetime) -> Iterator[Steps]:
        if retention.events is not None:
            yield EventSteps(now - retention.events, self._most_rows)
        if retention.attempts is not None:
            yield AttemptSteps(now - retention.attempts, self._most_rows)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with translate_errors(), self._engine.begin() as connection:
            yield connection


def _row(purge_id: int | None, removed: Removed) -> dict[str, int | None]:
    return {"id": purge_id, "events": removed.events, "attempts": removed.attempts}


def _since(began: float) -> timedelta:
    return timedelta(seconds=monotonic() - began)


class PurgeSchedule:
    """Purges when no process has begun a purge for ``every``; None is never.

    Any number of processes may run it: each asks the ledger about once a minute.
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
        """Purge whenever it is due, until stopped; failures are logged, and retried later."""
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
