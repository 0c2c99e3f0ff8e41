"""Removing old events and attempts, a little at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event
from time import monotonic
from typing import Final

from sqlalchemy import Connection, Engine, text

from application.ports.purge import (
    MOST_CLOCK_DIFFERENCE,
    ClocksDiffer,
    PurgeReport,
    Removed,
    Retention,
)
from infrastructure.database import errors_in_our_words
from infrastructure.ledger import purge_log
from infrastructure.ledger.clock import how_far_ahead
from infrastructure.ledger.purge_lock import lock_purges
from infrastructure.ledger.purge_steps import AttemptSteps, EventSteps, PurgeSteps

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
            entry = purge_log.begin(connection)
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
            return purge_log.is_due(connection, every)

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
        with errors_in_our_words(), self._engine.begin() as connection:
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
