from datetime import UTC, datetime, timedelta, timezone

import pytest

from kratos_sync.domain.fields import from_rfc3339, to_rfc3339


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-11-23T03:25:11Z", 0),
        ("2026-11-23T03:25:11.6Z", 600000),
        ("2026-11-23T03:25:11.678152Z", 678152),
        ("2026-11-23T03:25:11.6741219Z", 674121),
        ("2026-11-23T03:25:11.674121999Z", 674121),
        ("2026-11-23T05:25:11.6+02:00", 600000),
        ("2026-11-22T22:25:11-05:00", 0),
    ],
)
def test_a_time_is_read_in_utc_and_cut_to_microseconds(text: str, microsecond: int) -> None:
    moment = from_rfc3339(text)

    assert moment == datetime(2026, 11, 23, 3, 25, 11, microsecond, UTC)
    assert moment is not None
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+02:00", "0001-01-01T02:00:00+02:00"]
)
def test_gos_zero_time_is_no_time(text: str) -> None:
    assert from_rfc3339(text) is None


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-23", "2026-11-23T03:25:11", "9999-12-31T23:59:59-01:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_rfc3339(text)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 23, 3, 25, 10, 0, UTC), "2026-11-23T03:25:10Z"),
        (datetime(2026, 11, 23, 3, 25, 10, 140790, UTC), "2026-11-23T03:25:10.14079Z"),
        (
            datetime(2026, 11, 23, 5, 25, 10, 1, timezone(timedelta(hours=2))),
            "2026-11-23T03:25:10.000001Z",
        ),
    ],
)
def test_a_time_is_written_as_kratos_writes_it(moment: datetime, text: str) -> None:
    assert to_rfc3339(moment) == text
    assert from_rfc3339(text) == moment
