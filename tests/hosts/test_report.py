"""The report: what is late, wrong, or otherwise than in Kratos fails the run."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.faults.checks import Wrong
from tests.faults.kratos import Call
from tests.hosts.faults import FAULTS
from tests.hosts.report import failures, in_markdown
from tests.hosts.run import Outcome, Result

SAME = dict.fromkeys(("missing", "unseen", "gone", "unreadable"), 0)
WORKER, BROKER = "worker's host lost", "broker silent"


def result(
    *outcomes: Outcome,
    wrong: Sequence[Wrong] = (),
    fields: dict[str, int] | None = None,
    **more: int,
) -> Result:
    compared: dict[str, Any] = {**SAME, "fields": fields or {}, **more}
    return Result(outcomes, [], wrong, compared)


def outcome(name: str, goes_on_after: float | None, well_after: float | None) -> Outcome:
    return Outcome(name, 100.0, goes_on_after, 150.0, well_after, 200.0)


def test_a_run_in_which_all_went_on_and_recovered_does_not_fail() -> None:
    done = result(
        outcome(WORKER, 1.0, 2.0), outcome(BROKER, None, 3.0), fields={"metadata_admin": 7}
    )
    assert list(failures(done, FAULTS)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        result(outcome(WORKER, None, 2.0)),
        result(outcome(WORKER, 500.0, 2.0)),
        result(outcome(WORKER, 1.0, None)),
        result(outcome(BROKER, None, 500.0)),
        result(outcome(WORKER, 1.0, 2.0), wrong=[Wrong("lost", "a call", 120.0)]),
        result(outcome(WORKER, 1.0, 2.0), missing=1),
        result(outcome(WORKER, 1.0, 2.0), fields={"traits": 1}),
    ],
)
def test_each_of_these_fails_the_run(wrong: Result) -> None:
    assert len(list(failures(wrong, FAULTS))) == 1


def test_what_is_wrong_is_in_the_row_of_the_fault_that_began_last_before() -> None:
    done = result(outcome(WORKER, 1.0, 2.0), wrong=[Wrong("doubled", "an effect", 120.0)])
    [row] = [line for line in in_markdown(done).splitlines() if WORKER in line]
    assert row == f"| {WORKER} | 1.0 s | 2.0 s | 0.0 s | 0 | 1 | 0 | 0 | 0 |"


def test_the_longest_call_is_one_that_was_under_way_meanwhile() -> None:
    def call(sent_at: float, answered_at: float) -> Call:
        return Call("a trigger", "a person", 1, sent_at, answered_at, 200)

    lasting = outcome(WORKER, 1.0, 2.0)
    before, begun_before, after = call(50.0, 99.0), call(90.0, 101.0), call(201.0, 290.0)
    assert lasting.longest_call([before, begun_before, after]) == 11.0
