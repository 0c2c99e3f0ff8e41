"""Looking at what is owed to each consumer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from infrastructure.database import QUERY_CANCELED, errors_in_our_words
from infrastructure.ledger.floors import NO_FLOOR, Floors

# One look at everything: per consumer what is under lease, and what is due first. What is due later
# than soon is left for a later look: what lies between may be gone, and be much. The clock may have
# been ahead: what was never attempted is due now, and so is what is leased for more than the hour
# that a lease may last.
SURVEY = text("""
    SELECT wanted.name, now(),
           (SELECT count(*) FROM kratos_sync.deliveries
            WHERE consumer = wanted.name AND failed_at IS NULL AND leased
              AND due_at > greatest(now(), wanted.leased)
              AND due_at <= now() + interval '1 h'),
           least((SELECT min(due_at) FROM kratos_sync.deliveries
                  WHERE consumer = wanted.name AND failed_at IS NULL AND NOT leased
                    AND due_at >= coalesce(wanted.fresh, '-infinity') AND due_at < now() + :soon),
                 (SELECT now() FROM kratos_sync.deliveries
                  WHERE consumer = wanted.name AND failed_at IS NULL AND NOT leased
                    AND attempts = 0 AND error_type IS NULL AND due_at > now() + interval '1 s'
                  ORDER BY due_at LIMIT 1)),
           least((SELECT min(due_at) FROM kratos_sync.deliveries
                  WHERE consumer = wanted.name AND failed_at IS NULL AND leased
                    AND due_at >= coalesce(wanted.leased, '-infinity')),
                 (SELECT now() FROM kratos_sync.deliveries
                  WHERE consumer = wanted.name AND failed_at IS NULL AND leased
                    AND due_at > now() + interval '1 h'
                  ORDER BY due_at LIMIT 1))
    FROM unnest(CAST(:consumers AS text[]), CAST(:fresh AS timestamptz[]),
                CAST(:leased AS timestamptz[])) AS wanted (name, fresh, leased)
""")
SOON = timedelta(seconds=10)
RECENT = text("SELECT now() - CAST('10 min' AS interval)")


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a consumer is owed: how much is under lease, and in how long the next one is due.

    ``due_in`` is negative for what is overdue, and None where nothing is due soon.
    """

    leased: int
    due_in: timedelta | None

    @property
    def is_due(self) -> bool:
        """Whether something may be claimed now."""
        return self.due_in is not None and self.due_in <= timedelta()


class Survey:
    """Looks at all consumers in one statement, from the floors up, and tells the floors."""

    def __init__(self, engine: Engine, floors: Floors) -> None:
        self._engine = engine
        self._floors = floors

    def of(self, consumers: Sequence[str]) -> Mapping[str, Backlog]:
        """Look at what these consumers are owed. Raises LedgerUnavailable."""
        floors = self._floors.for_survey(consumers)
        full = [name for name, floor in zip(consumers, floors, strict=True) if floor is NO_FLOOR]
        began = monotonic()
        with errors_in_our_words(), self._engine.begin() as connection:
            try:
                rows = connection.execute(
                    SURVEY,
                    {
                        "consumers": list(consumers),
                        "fresh": [floor.fresh for floor in floors],
                        "leased": [floor.leased for floor in floors],
                        "soon": SOON,
                    },
                ).all()
            except DBAPIError as error:
                if full and getattr(error.orig, "sqlstate", None) == QUERY_CANCELED:
                    recent = connection.execute(RECENT).scalar_one()
                    self._floors.full_look_failed(full, recent)
                raise
        self._floors.full_look_took(full, monotonic() - began)
        return {name: self._backlog(name, *found) for name, *found in rows}

    def _backlog(
        self,
        consumer: str,
        now: datetime,
        count: int,
        fresh: datetime | None,
        leased: datetime | None,
    ) -> Backlog:
        self._floors.learn(consumer, now, fresh, leased)
        due = [at - now for at in (fresh, leased) if at is not None]
        return Backlog(count, min(due, default=None))
