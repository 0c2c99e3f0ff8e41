"""Removing old events and attempts, step by step."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, text

from kratos_sync.application.operation_scopes import PurgeScope
from kratos_sync.application.operations import RunningOperation, recorded
from kratos_sync.application.ports.operations import (
    How,
    OperationRequest,
    Operations,
    Outcome,
)
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
from kratos_sync.infrastructure.observability.observer import UNOBSERVED, Observer
from kratos_sync.infrastructure.postgres.engine import how_far_ahead, translate_errors
from kratos_sync.infrastructure.schedule import Schedule

# Any number does, as long as nothing else in the database takes advisory locks on it.
PURGE_LOCK: Final = 5_720_684_118
LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")
LOCK_SHARED: Final = text("SELECT pg_advisory_xact_lock_shared(:key)")

DEAD_AFTER: Final = timedelta(minutes=2)
"""A purge without a step for so long was killed; steps and the pauses between them are shorter."""
KEPT: Final = 1_000
"""How many purges the ledger remembers."""
MOST_ROWS: Final = 2_000
"""How many rows a step reads: it takes some hundredths of a second."""
PAUSE: Final = 2.0
"""The pause after a step, in multiples of what the step took."""
LONGEST_PAUSE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 60.0
BY_RELAY: Final = "relay"
"""Who requests what a relay does on its schedule."""

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
REMOVE_OLDEST: Final = text("DELETE FROM kratos_sync.purges WHERE id <= :id - :kept")
LAST: Final = text("""
    SELECT started_at, ended_at, events, attempts FROM kratos_sync.purges ORDER BY id DESC LIMIT 1
""")
IS_DUE: Final = text("""
    SELECT NOT EXISTS (
        SELECT FROM kratos_sync.purges
        WHERE started_at BETWEEN clock_timestamp() - :every AND clock_timestamp()
    )
""")
# Functions of the schema: they take the lock, and keep what is pending. Both statements return the
# place of the next step, how many rows were removed, and whether the step was the last.
EVENTS: Final = text("""
    SELECT after, after_id, removed, looked_at < :most FROM kratos_sync.purge_events(
        :before, CAST(:after AS timestamptz), CAST(:after_id AS uuid), :most, :remove)
""")
# In the order of ids, which is nearly that of time. The times are by workers' clocks: those in the
# future say nothing about the attempts that come after them.
ATTEMPTS: Final = text("""
    SELECT after, CAST(:after_id AS uuid), removed, looked_at < :most OR any_young AND NOT any_old
    FROM kratos_sync.purge_attempts(:before, CAST(:after AS bigint), :most, :remove)
""")
# A crash may undo the last steps and the count of them; no step waits for the disk.
UNHURRIED: Final = text("SET LOCAL synchronous_commit = off")
NOW: Final = text("SELECT now()")

Progress = Callable[[Removed], None]

log = structlog.get_logger()


def lock_purges(connection: Connection) -> None:
    """Exclude purges, and deliveries of events recorded before, until this transaction ends.

    The next statement sees everything that is pending. Waits for the length of a step if the lock
    is held; raises sqlalchemy.exc.OperationalError when that takes too long.
    """
    connection.execute(LOCK, {"key": PURGE_LOCK})


def hold_off_purges(connection: Connection) -> None:
    """Exclude purges until this transaction ends; call it before redelivering old events.

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


class PostgresPurge:
    """The Purge port. Its methods also raise sqlalchemy.exc.DBAPIError."""

    def __init__(self, engine: Engine, most_rows: int = MOST_ROWS) -> None:
        self._engine = engine
        self._most_rows = most_rows

    def run(
        self, retention: Retention, stopped: threading.Event, progress: Progress
    ) -> PurgeReport:
        now = self._now()
        with self._transaction() as connection:
            purge_id = begin(connection)
        try:
            return self._walk(retention, now, stopped, progress, purge_id)
        finally:
            with self._transaction() as connection:
                connection.execute(END, {"id": purge_id})
                connection.execute(REMOVE_OLDEST, {"id": purge_id, "kept": KEPT})

    def preview(
        self, retention: Retention, stopped: threading.Event, progress: Progress
    ) -> PurgeReport:
        """Count in the same steps, without pauses."""
        return self._walk(retention, self._now(), stopped, progress, None)

    def is_due(self, every: timedelta) -> bool:
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
        stopped: threading.Event,
        progress: Progress,
        purge_id: int | None,
    ) -> PurgeReport:
        """Take all steps, and note in the purge's row what each removed; without one only count."""
        remove = purge_id is not None
        began, removed = monotonic(), Removed()
        tables = (
            ("events", EVENTS, "-infinity", retention.events),
            ("attempts", ATTEMPTS, 0, retention.attempts),
        )
        for table, statement, start, kept_for in tables:
            if kept_for is None:
                continue
            step: dict[str, object] = {"before": now - kept_for, "most": self._most_rows}
            step |= {"remove": remove, "after": start, "after_id": UUID(int=0)}
            last = False
            while not last:
                if stopped.is_set():
                    return PurgeReport(removed, _since(began), completed=False)
                step_began = monotonic()
                with self._transaction() as connection:
                    if remove:
                        lock_purges(connection)
                        connection.execute(UNHURRIED)
                    row = connection.execute(statement, step).one()
                    step["after"], step["after_id"], number, last = row
                    part = Removed(**{table: number})
                    added = {"id": purge_id, **part._asdict()}
                    if remove and connection.execute(ADD, added).rowcount == 0:
                        raise AnotherPurge("another purge has taken over")
                removed = removed.plus(part)
                progress(removed)
                if remove and not last:
                    pause = PAUSE * (monotonic() - step_began)
                    stopped.wait(min(pause, LONGEST_PAUSE_SECONDS))
        return PurgeReport(removed, _since(began), completed=True)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with translate_errors(), self._engine.begin() as connection:
            yield connection


def _since(began: float) -> timedelta:
    return timedelta(seconds=monotonic() - began)


class PurgeSchedule(Schedule):
    """Purges when no process has begun a purge for ``every``; None is never.

    A purge that removes something is recorded as an operation. ``operations_kept`` is how long
    those are kept; None is for ever.
    """

    abandoned = "purge_abandoned"

    def __init__(
        self,
        purge: Purge,
        retention: Retention,
        every: timedelta | None,
        *,
        operations: Operations,
        operations_kept: timedelta | None = None,
        look_seconds: float = LOOK_SECONDS,
        observer: Observer = UNOBSERVED,
    ) -> None:
        super().__init__(look_seconds)
        self._observer = observer
        self._purge = purge
        self._retention = retention
        self._every = every
        self._operations = operations
        self._operations_kept = operations_kept

    def run(self, stopped: threading.Event) -> None:
        if self._every:
            super().run(stopped)

    def run_once(self, stopped: threading.Event) -> None:
        try:
            if not self._every or not self._purge.is_due(self._every):
                return
            report = self._run(stopped)
        except AnotherPurge as error:
            log.info("purge_left_to_another", reason=str(error))
            return
        except ClocksDiffer as error:
            log.warning(self.abandoned, reason=str(error))
            return
        if report.removed != Removed():
            self._observer.purged(report.removed)
            log.info(
                "purged",
                **report.removed._asdict(),
                seconds=round(report.took.total_seconds(), 3),
                completed=report.completed,
            )
        self._remove_old_operations(stopped)

    def _run(self, stopped: threading.Event) -> PurgeReport:
        scope = PurgeScope.of_retention(self._retention).to_json()
        request = OperationRequest("purge", BY_RELAY, How.SCHEDULE, scope=scope)
        with recorded(self._operations, request, lazily=True) as operation:
            report = self._purge.run(self._retention, stopped, partial(_note, operation))
            if not report.completed:
                operation.ends_as = Outcome.INTERRUPTED
        return report

    def _remove_old_operations(self, stopped: threading.Event) -> None:
        if self._operations_kept is None:
            return
        removed, last = 0, MOST_ROWS
        while last == MOST_ROWS and not stopped.is_set():
            last = self._operations.remove_older(self._operations_kept, MOST_ROWS)
            removed += last
        if removed:
            log.info("operations_removed", operations=removed)


def _note(operation: RunningOperation, removed: Removed) -> None:
    if removed != Removed():
        operation.advance(sum(removed), **removed._asdict())
