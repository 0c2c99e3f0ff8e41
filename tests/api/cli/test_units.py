from datetime import datetime, timedelta, timezone

import pytest

from kratos_sync.api.cli.options import amount, duration, iso, moment, roughly


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 ms"),
        (0.0123, "12 ms"),
        (1, "1 s"),
        (4.24, "4.2 s"),
        (9.99, "10 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (3_605, "1 h"),
        (42_785, "11 h 53 min"),
        (2 * 86_400 + 59, "2 d"),
        (2 * 86_400 + 3_600, "2 d 1 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(timedelta(seconds=seconds)) == words


def test_a_duration_may_have_one_unit() -> None:
    assert duration(timedelta(hours=11, minutes=53), units=1) == "11 h"


def test_a_moment_is_in_utc() -> None:
    at = datetime(2026, 7, 1, 14, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    assert moment(at) == "2026-07-01 12:00:00 UTC"
    assert iso(at) == "2026-07-01T12:00:00.000005Z"


def test_one_is_singular() -> None:
    assert amount(1, "delivery", "deliveries") == "1 delivery"
    assert amount(1_200, "delivery", "deliveries") == "1,200 deliveries"
    assert amount(0, "event") == "0 events"


@pytest.mark.parametrize(("number", "words"), [(0, "0"), (7, "7"), (1_996_060, "2,000,000")])
def test_an_estimate_has_three_digits(number: int, words: str) -> None:
    assert roughly(number) == f"about {words}"
