"""Looking at what is owed to each consumer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.infrastructure.postgres.engine import QUERY_CANCELED, translate_errors

MARGIN: Final = timedelta(seconds=1)
"""How far a floor stays below what is owed: a commit comes later than the time it writes."""
SLOW_SECONDS: Final = 0.015
"""A full look that is quicker costs nothing worth a floor."""
PART_OF_TIME: Final = 1 / 30
"""Full looks take no more of it, unless they are needed for LONGEST_SECONDS."""
LONGEST_SECONDS: Final = 10.0
"""The longest between two full looks, and so the longest that anything stays below a floor."""
FAILED_SECONDS: Final = 600.0
"""The same after a full look that did not come to an end."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The lowest due times that a look goes down to, by the database's clock; None is no floor.

    ``fresh`` is for deliveries that wait to be dispatched, ``leased`` for those under lease.
    """

    fresh: datetime | None = None
    leased: datetime | None = None


NO_FLOOR: Final = Floor()


class Floors:
    """What one relay knows of each consumer: a hint only, for speed.

    Something may come to lie below a floor (a transaction that took long, a clock set back). So
    every now and then a look has no floor, and finds whatever there is: the quicker such a full
    look was, the sooner comes the next. In a ledger without many dead rows all looks are full.
    """

    def __init__(self, lease: timedelta) -> None:
        self._lease = lease
        self._floors: dict[str, Floor] = {}
        self._full_look_at: dict[str, float] = {}
        self._was_slow: set[str] = set()

    def known(self, consumer: str) -> Floor:
        """The floor for a claim, as the last look found it."""
        return self._floors.get(consumer, NO_FLOOR)

    def for_survey(self, consumers: Iterable[str]) -> list[Floor]:
        """The floors for a look at these consumers, none for those whose full look is due."""
        now = monotonic()
        return [
            self.known(name) if now < self._full_look_at.get(name, now) else NO_FLOOR
            for name in consumers
        ]

    def learn(
        self, consumer: str, now: datetime, fresh: datetime | None, leased: datetime | None
    ) -> None:
        """Take note of the lowest due times that a look has found."""
        self._floors[consumer] = Floor(
            min(fresh or now, now) - MARGIN,
            min(leased or now + self._lease, now + self._lease) - MARGIN,
        )

    def full_look_took(self, consumers: Sequence[str], seconds: float) -> None:
        """Take note of what a full look has cost."""
        if seconds < SLOW_SECONDS:
            self._was_slow.difference_update(consumers)
            return
        # One slow look is followed by another: the machine may have been busy.
        at = monotonic() + min(seconds / PART_OF_TIME, LONGEST_SECONDS)
        self._full_look_at.update({name: at for name in consumers if name in self._was_slow})
        self._was_slow.update(consumers)

    def full_look_failed(self, consumers: Sequence[str], recent: datetime) -> None:
        """Go on with what is known, and where nothing is, with what became due ``recent``-ly."""
        self._full_look_at.update(dict.fromkeys(consumers, monotonic() + FAILED_SECONDS))
        for name in consumers:
            self._floors.setdefault(name, Floor(recent, recent))


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
        with translate_errors(), self._engine.begin() as connection:
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
