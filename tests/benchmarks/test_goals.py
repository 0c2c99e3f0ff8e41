from collections import Counter

import pytest

from benchmarks.goals import ROWS, Row
from benchmarks.report.speed import goals
from tests.benchmarks.results import RESULTS


def rate(results: object) -> float:
    return 9_999.6


def test_every_row_has_a_figure_in_the_results() -> None:
    assert all(row.figure(RESULTS) > 0 for row in ROWS)


def test_the_table_has_every_row_once() -> None:
    table = goals(RESULTS).splitlines()

    assert len(table) == 2 + len(ROWS)
    assert Counter(line.count("|") for line in table) == {5: len(table)}


@pytest.mark.parametrize(
    ("row", "met", "goal"),
    [
        (Row("a", rate, "{:,.0f}/s", at_least=10_000), False, "at least 10,000/s"),
        (Row("a", rate, "{:,.0f}/s", at_least=9_000), True, "at least 9,000/s"),
        (Row("a", rate, "{:,.0f}/s", less_than=9_000), False, "below 9,000/s"),
        (Row("a", rate, "{:,.0f}/s", less_than=10_000), True, "below 10,000/s"),
        (Row("a", rate, "{:,.0f}/s"), None, ""),
    ],
)
def test_a_goal_is_met_by_the_figure_and_not_by_how_it_is_rounded(
    row: Row, met: bool | None, goal: str
) -> None:
    assert row.is_met({}) is met
    assert row.goal == goal


def test_what_is_promised_is_what_was_agreed() -> None:
    promised = [row.goal for row in ROWS if row.goal]

    assert promised == [
        "at least 10,000/s",
        *(4 * ["at least 10.0 ×"]),
        "at least 2.0 ×",
        *("at least 60 %", "at least 50 %", "at least 50 %", "below 250 MB"),
        *("at least 80 %", "at least 80 %"),
        *("below 1.00 s", "at least 90 %"),
        *("at least 4.0 ×", "at least 0.40 ×"),
        *("below 10.0 ms", "below 50.0 ms", "below 50.0 ms"),
        *("at least 90 %", "below 50.0 ms", "at least 97 %"),
        *(3 * ["below 150 MB"]),
        *("below 2.00 %", "below 5.0/s"),
    ]
