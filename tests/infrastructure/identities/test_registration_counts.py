"""Registrations by day, in PostgreSQL."""

from datetime import date, timedelta

from sqlalchemy import Engine

from kratos_sync.infrastructure.identities.registration_counts import PostgresRegistrationCounts
from kratos_sync.infrastructure.postgres.transaction import Transaction
from tests.suites.stores import CountsInPostgres
from tests.waiting import at_once

MONDAY = date(2026, 11, 23)


def test_counts_that_come_at_once_add_up(engine: Engine) -> None:
    counts = CountsInPostgres(engine)
    week = [MONDAY + timedelta(days=number) for number in range(7)]

    def count(days: list[date]) -> None:
        for _ in range(5):
            with counts.begin() as counting:
                for day in days:
                    counting.add_one(day)

    at_once(lambda: count(week), lambda: count(week[::-1]), lambda: count(week))

    assert counts.by_day() == dict.fromkeys(week, 15)


def test_a_count_is_written_by_the_commit_and_raises_nothing(engine: Engine) -> None:
    transaction = Transaction(engine)
    with transaction.begin(timedelta(seconds=20)):
        PostgresRegistrationCounts(transaction).add_one(MONDAY)
        raised = transaction.collect_events()
        before = CountsInPostgres(engine).by_day()
        transaction.commit()

    assert (raised, before) == ([], {})
    assert CountsInPostgres(engine).by_day() == {MONDAY: 1}
