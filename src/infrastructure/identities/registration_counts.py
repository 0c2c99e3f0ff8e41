"""Registrations by day, in PostgreSQL."""

from collections import Counter
from datetime import date

from sqlalchemy import text

from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.postgres.transaction import Transaction

ADD = text("""
    INSERT INTO kratos_sync.registrations_per_day AS counted (day, registrations)
    VALUES (:day, :registrations)
    ON CONFLICT (day) DO UPDATE SET registrations = counted.registrations + excluded.registrations
""")


class PostgresRegistrationCounts:
    """The RegistrationCounts port: counts in memory, and adds up once a transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._counted: Counter[date] = Counter()
        self._counted_before = self._counted
        transaction.join(self)

    def add_one(self, day: date) -> None:
        self._counted[day] += 1

    def flush(self) -> None:
        """Add what was counted, in the order of days, so that two transactions cannot deadlock."""
        counts = sorted(self._counted.items())
        if counts:
            rows: list[dict[str, object]] = [{"day": d, "registrations": n} for d, n in counts]
            self._transaction.execute(ADD, rows)

    def savepoint(self) -> None:
        self._counted_before = self._counted.copy()

    def roll_back_to_savepoint(self) -> None:
        self._counted = self._counted_before

    def collect_events(self) -> list[DomainEvent]:
        """A count raises nothing."""
        return []
