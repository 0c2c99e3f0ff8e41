"""When what reconciling repaired is a rise."""

from datetime import timedelta

import pytest

from kratos_sync.application.drift import Drift, Rise
from kratos_sync.application.ports.reconciliation import Findings, PastReconciliation
from tests.domain.people import NOON

HOUR = timedelta(hours=1)


def past(
    hours_ago: float,
    number: int = 0,
    *,
    hook: str = "settings",
    ended: bool = True,
    identities: int = 1_000,
) -> PastReconciliation:
    began = NOON - hours_ago * HOUR
    found = Findings(identities=identities, missed_webhooks={hook: number})
    return PastReconciliation(began, began, began if ended else None, "completed", found)


def hourly(newest: int, *before: int) -> Drift:
    """One each hour, newest first."""
    return Drift([past(hour, number) for hour, number in enumerate([newest, *before])])


def test_ten_are_no_rise_and_eleven_are() -> None:
    assert hourly(10, 0, 0, 0, 0).rise is None
    assert hourly(11, 0, 0, 0, 0).rise == Rise(11, 0, HOUR)


def test_three_times_as_many_as_usual_are_no_rise_and_one_more_is() -> None:
    assert hourly(60, 20, 20, 20, 20).rise is None
    assert hourly(61, 20, 20, 20, 20).rise == Rise(61, pytest.approx(20), HOUR)


def test_with_too_few_runs_before_there_is_no_rise() -> None:
    assert hourly(1_000, 0, 0).rise is None
    assert hourly(1_000, 0, 0, 0).rise is None  # of the oldest nobody knows in how long
    assert hourly(1_000, 0, 0, 0, 0).rise


def test_one_bad_day_among_those_before_hides_no_rise() -> None:
    assert hourly(100, 10, 9_000, 10, 10, 10).rise


def test_only_the_ten_before_are_compared_with() -> None:
    assert hourly(100, *[10] * 10, *[9_000] * 15).rise
    assert hourly(100, *[10] * 4, *[9_000] * 7).rise is None


def test_one_that_comes_late_may_find_more() -> None:
    before = [past(hour, 10) for hour in range(24, 34)]
    assert Drift([past(0, 240), *before]).rise is None
    rise = Drift([past(0, 800), *before]).rise
    assert rise == Rise(800, pytest.approx(240), 24 * HOUR)


def test_what_no_webhook_reports_is_no_rise() -> None:
    quiet = [past(hour) for hour in range(1, 8)]
    for hook in ("admin", "untold", "old", "on_its_way", "revived", "other"):
        assert Drift([past(0, 1_000, hook=hook), *quiet]).rise is None


def test_a_running_or_empty_run_is_not_compared() -> None:
    quiet = [past(hour) for hour in range(2, 9)]
    running = past(0, 1_000, ended=False)
    refused = past(1, 1_000, identities=0)
    assert Drift([running, refused, *quiet]).rise is None
    assert Drift([running, past(1, 1_000), *quiet]).rise


def test_two_at_the_same_moment_divide_by_no_zero() -> None:
    assert Drift([past(0, 100)] * 6).rise is None


def test_the_newest_run_and_the_last_that_ended_differ() -> None:
    running, over = past(0, ended=False), past(1)
    drift = Drift([running, over])
    assert (drift.newest, drift.last) == (running, over)
    assert (Drift().newest, Drift().last, Drift().rise) == (None, None, None)
