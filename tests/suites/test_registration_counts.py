from datetime import date, timedelta

import pytest

from tests.suites.stores import Counts

MONDAY = date(2026, 11, 23)
TUESDAY = MONDAY + timedelta(days=1)


def test_registrations_add_up_by_day(counts: Counts) -> None:
    with counts.begin() as counting:
        for day in (TUESDAY, MONDAY, MONDAY):
            counting.add_one(day)

    assert counts.by_day() == {MONDAY: 2, TUESDAY: 1}


def test_a_day_goes_on_where_it_stood(counts: Counts) -> None:
    for _ in range(3):
        with counts.begin() as counting:
            counting.add_one(MONDAY)

    assert counts.by_day() == {MONDAY: 3}


def test_what_was_not_committed_was_not_counted(counts: Counts) -> None:
    def change_her_mind() -> None:
        with counts.begin() as counting:
            counting.add_one(MONDAY)
            raise LookupError("Ada changed her mind")

    with pytest.raises(LookupError):
        change_her_mind()

    assert counts.by_day() == {}


def test_counting_nobody_counts_nothing(counts: Counts) -> None:
    with counts.begin():
        pass

    assert counts.by_day() == {}
