"""The report: what is wrong is attributed to a kind of fault, and fails the run."""

from collections.abc import Sequence

import pytest

from tests.faults.checks import Wrong
from tests.faults.report import (
    BEFORE_ANY,
    UNKNOWN,
    alerts_in_markdown,
    failures,
    lines,
    without_alert,
)
from tests.faults.run import Outcome
from tests.faults.schedule import Fault


def outcome(kind: str, started_at: float, recovered_in: float | None = 1.0) -> Outcome:
    fault = Fault(1, kind, target="anything", starts_after=0, seconds=0)
    return Outcome(fault, started_at, recovered_in=recovered_in)


DONE = [outcome("api killed", 100.0), outcome("broker wiped", 200.0)]


def failures_of(outcomes: Sequence[Outcome], *wrong: Wrong) -> list[str]:
    return list(failures(lines(outcomes, wrong)))


def test_a_run_in_which_nothing_is_wrong_does_not_fail() -> None:
    assert failures_of(DONE) == []


@pytest.mark.parametrize(
    ("at", "kind"),
    [(50.0, BEFORE_ANY), (150.0, "api killed"), (250.0, "broker wiped"), (None, UNKNOWN)],
)
def test_what_is_wrong_is_attributed_to_the_fault_that_began_last_before(
    at: float | None, kind: str
) -> None:
    assert failures_of(DONE, Wrong("lost", "something", at)) == [f"{kind}: 1 lost."]


def test_a_fault_that_was_not_recovered_from_fails_the_run() -> None:
    [failure] = failures_of([outcome("api killed", 100.0, recovered_in=None)])
    assert "not recovered in time" in failure


def test_a_recovery_that_took_too_long_fails_the_run() -> None:
    [failure] = failures_of([outcome("api killed", 100.0, recovered_in=50.0)])
    assert "not recovered in time" in failure


def test_a_fault_that_could_not_be_done_is_not_counted_and_fails_the_run() -> None:
    missed = outcome("api killed", 100.0)
    missed.missed = "AssertionError: there was none"
    [line] = lines([missed], [])
    assert line.times == 0
    assert failures_of([missed]) == ["api killed: 1 times it could not be done."]


def test_the_longest_recovery_is_reported() -> None:
    [line] = lines([outcome("api killed", 1.0, 0.5), outcome("api killed", 2.0, 2.5)], [])
    assert (line.times, line.longest_recovery) == (2, 2.5)


def test_a_kind_without_its_expected_alert_is_named() -> None:
    [line] = lines([outcome("api killed", 100.0)], [])
    assert list(without_alert([line])) == ["api killed: 1 times without an alert."]


def test_an_alert_that_came_late_is_named() -> None:
    late = outcome("api killed", 100.0)
    late.alert = ("KratosSyncProcessRestarted", 75.0)
    [line] = lines([late], [])
    assert list(without_alert([line])) == [
        "api killed: KratosSyncProcessRestarted fired after 75 s."
    ]


def test_the_documentations_table_says_why_a_fault_needs_no_alert() -> None:
    wiped = outcome("broker wiped", 100.0)
    table = alerts_in_markdown(lines([wiped], []))
    assert table.splitlines()[2:] == [
        "| broker wiped | none: what was in it is dispatched again at once | |"
    ]
