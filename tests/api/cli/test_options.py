from datetime import UTC, datetime, timedelta

import click
import pytest

from kratos_sync.api.cli.options import point_in_time, resolved

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def read(text: str) -> datetime | None:
    return resolved(point_in_time(text), NOON)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90s", NOON - timedelta(seconds=90)),
        ("15min", NOON - timedelta(minutes=15)),
        ("15m", NOON - timedelta(minutes=15)),
        ("2h", NOON - timedelta(hours=2)),
        ("3 d", NOON - timedelta(days=3)),
        (" 99999w ", NOON - timedelta(weeks=99_999)),
        ("2026-06-30", datetime(2026, 6, 30, tzinfo=UTC)),
        ("2026-06-30T08:15", datetime(2026, 6, 30, 8, 15, tzinfo=UTC)),
        ("2026-06-30T08:15:00.000001Z", datetime(2026, 6, 30, 8, 15, 0, 1, tzinfo=UTC)),
        ("2026-06-30T08:15+02:00", datetime(2026, 6, 30, 6, 15, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_duration_ago_or_iso_8601(text: str, at: datetime) -> None:
    assert read(text) == at


@pytest.mark.parametrize(
    "text", ["", "h", "yesterday", "-2h", "2y", "1e3s", "٣d", "999999w", "0001-01-01T00:00+14:00"]
)
def test_any_other_time_is_wrong_use(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a duration"):
        read(text)


def test_no_time_stays_none() -> None:
    assert resolved(None, NOON) is None
