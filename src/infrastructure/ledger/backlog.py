"""The survey of the backlog of each consumer, from low-water marks upwards."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.infrastructure.postgres.engine import QUERY_CANCELED, translate_errors

MARGIN: Final = timedelta(seconds=1)
"""How far a mark stays below the lowest due time: a commit comes later than the time it writes."""
SLOW_SECONDS: Final = 0.015
"""Marks are used only where full scans take at least this long."""
PART_OF_TIME: Final = 1 / 30
"""The share of time that full scans may take, within LONGEST_SECONDS."""
LONGEST_SECONDS: Final = 10.0
"""The longest time between two full scans: so long may a delivery below a mark wait."""
FAILED_SECONDS: Final = 600.0
"""The same after a full scan that timed out."""


@dataclass(frozen=True, slots=True)
class LowWaterMark:
    """The due times that a scan starts from, by the database's clock; None is the beginning.

    ``leased`` is for deliveries under lease, ``fresh`` for the others.
    """

    fresh: datetime | None = None
    leased: datetime | None = None


BEGINNING: Final = LowWaterMark()


class LowWaterMarks:
    """The low-water mark of each consumer, kept by a relay for speed only.

    A delivery may lie below a mark, after a long transaction or with a clock set back. So full
    scans, without a mark, are repeated: the quicker one was, the sooner the next. In a ledger
    without many dead rows every scan is full.
    """

    def __init__(self, lease: timedelta) -> None:
        self._lease = lease
        self._marks: dict[str, LowWaterMark] = {}
        self._next_full_scan: dict[str, float] = {}
        self._was_slow: set[str] = set()

    def known(self, consumer: str) -> LowWaterMark:
        """The mark for a claim, from the latest survey."""
        return self._marks.get(consumer, BEGINNING)

    def for_survey(self, consumers: Iterable[str]) -> list[LowWaterMark]:
        """The marks for a survey; BEGINNING where a full scan is due."""
        now = monotonic()
        return [
            self.known(name) if now < self._next_full_scan.get(name, now) else BEGINNING
            for name in consumers
        ]

    def update(
        self, consumer: str, now: datetime, fresh: datetime | None, leased: datetime | None
    ) -> None:
        """Set a mark from the lowest due times in a survey."""
        self._marks[consumer] = LowWaterMark(
            min(fresh or now, now) - MARGIN,
            min(leased or now + self._lease, now + self._lease) - MARGIN,
        )

    def full_scan_took(self, consumers: Sequence[str], seconds: float) -> None:
        """Plan the next full scan by what this one took."""
        if seconds < SLOW_SECONDS:
            self._was_slow.difference_update(consumers)
            return
        # A single slow scan is followed by another one: the machine may have been busy.
        at = monotonic() + min(seconds / PART_OF_TIME, LONGEST_SECONDS)
        self._next_full_scan.update({name: at for name in consumers if name in self._was_slow})
        self._was_slow.update(consumers)

    def full_scan_failed(self, consumers: Sequence[str], recent: datetime) -> None:
        """Keep the known marks; a consumer without one gets ``recent``."""
        self._next_full_scan.update(dict.fromkeys(consumers, monotonic() + FAILED_SECONDS))
        for name in consumers:
            self._marks.setdefault(name, LowWaterMark(recent, recent))


# For each consumer how much is under lease, and when the first delivery is due. What is due later
# than soon is not searched for: there may be many dead rows before it. Clocks may have been ahead:
# what was never attempted, or is leased for more than an hour, is due now.
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
    """A consumer's pending deliveries: how many are leased, and in how long the next one is due.

    ``due_in`` is negative for what is overdue, and None where nothing is due soon.
    """

    leased: int
    due_in: timedelta | None

    @property
    def is_due(self) -> bool:
        """Whether something may be claimed now."""
        return self.due_in is not None and self.due_in <= timedelta()


def survey(engine: Engine, marks: LowWaterMarks, consumers: Sequence[str]) -> Mapping[str, Backlog]:
    """Survey all consumers in one statement, and update their marks. Raises LedgerUnavailable."""
    begin_at = marks.for_survey(consumers)
    full = [name for name, mark in zip(consumers, begin_at, strict=True) if mark is BEGINNING]
    parameters = {
        "consumers": list(consumers),
        "fresh": [mark.fresh for mark in begin_at],
        "leased": [mark.leased for mark in begin_at],
        "soon": SOON,
    }
    began = monotonic()
    try:
        with translate_errors(), engine.begin() as connection:
            rows = connection.execute(SURVEY, parameters).all()
    except DBAPIError as error:
        if full and getattr(error.orig, "sqlstate", None) == QUERY_CANCELED:
            with translate_errors(), engine.begin() as connection:
                marks.full_scan_failed(full, connection.execute(RECENT).scalar_one())
        raise
    marks.full_scan_took(full, monotonic() - began)
    backlogs = {}
    for consumer, now, count, fresh, leased in rows:
        marks.update(consumer, now, fresh, leased)
        due_in = [at - now for at in (fresh, leased) if at is not None]
        backlogs[consumer] = Backlog(count, min(due_in, default=None))
    return backlogs
