"""The `Retry-After` header."""

from datetime import UTC, datetime, timedelta

import pytest

from kratos_sync.infrastructure.kratos.retrying import LONGEST, retry_after

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("600", 600),
        ("601", 600),
        ("9" * 5000, 600),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Monday, 23-Nov-26 12:00:30 GMT", 30),
        ("Mon Nov 23 12:00:30 2026", 30),
        ("Mon, 23 Nov 2026 11:59:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
    ],
)
def test_seconds_and_dates_are_understood_and_capped(said: str, seconds: int) -> None:
    assert retry_after({"retry-after": said}, lambda: NOW) == timedelta(seconds=seconds)


def test_a_date_is_compared_with_the_servers_own() -> None:
    headers = {
        "retry-after": "Mon, 23 Nov 2026 15:00:30 GMT",
        "date": "Mon, 23 Nov 2026 15:00:00 GMT",
    }

    assert retry_after(headers, lambda: NOW) == timedelta(seconds=30)


@pytest.mark.parametrize("said", ["", "soon", "-1", "1.5", "٧", "Mon, 99 Nov 2026", "1e9"])
def test_what_makes_no_sense_says_nothing(said: str) -> None:
    assert retry_after({"retry-after": said}, lambda: NOW) is None


def test_no_header_says_nothing() -> None:
    assert retry_after({}) is None
    assert timedelta(minutes=10) == LONGEST
