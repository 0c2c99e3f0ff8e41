"""Carrying out an operation that is recorded."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from kratos_sync.application import operations as module
from kratos_sync.application.operations import (
    OperationCancelled,
    OperationLost,
    RunningOperation,
    recorded,
)
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.operations import (
    DEAD_AFTER,
    How,
    Interrupted,
    Noted,
    Operation,
    OperationFilter,
    OperationRequest,
    Outcome,
    Progress,
)
from tests.fakes.operations import InMemoryOperations
from tests.waiting import until

REQUEST = OperationRequest("replay", "ada", How.CLI)
SOON = 0.005


class Away(InMemoryOperations):
    """A record whose database is away for as long as ``is_away``."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.refused = 0

    def note(
        self,
        operation_id: int,
        runner: UUID,
        progress: Progress,
        outcome: Outcome = Outcome.RUNNING,
    ) -> Noted | None:
        if self.is_away:
            self.refused += 1
            raise LedgerUnavailable("it is away")
        return super().note(operation_id, runner, progress, outcome)


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Away:
    monkeypatch.setattr(module, "POLL_SECONDS", SOON)
    return Away()


def running(operations: Away, **options: Any) -> AbstractContextManager[RunningOperation]:
    return recorded(operations, REQUEST, 4, beat_seconds=SOON, **options)


def only(operations: Away) -> Operation:
    (found,) = operations.newest(OperationFilter(), 9)
    return found


def repeat(step: Callable[[], None]) -> None:
    """Repeat a step until it raises."""

    def is_over() -> bool:
        step()
        return False

    until(is_over)


def test_it_runs_before_its_first_step_and_completes_after_the_last(operations: Away) -> None:
    with running(operations) as operation:
        assert only(operations).outcome is Outcome.RUNNING
        operation.advance(3, left=1)
        operation.advance(4)
    assert (only(operations).outcome, only(operations).done) == (Outcome.COMPLETED, 4)
    assert (only(operations).total, only(operations).result) == (4, {"left": 1})


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("ada@example.org"), Outcome.FAILED),
        (LedgerUnavailable("ada@example.org"), Outcome.FAILED),
        (Interrupted("a signal"), Outcome.INTERRUPTED),
        (KeyboardInterrupt(), Outcome.INTERRUPTED),
        (SystemExit(1), Outcome.INTERRUPTED),
    ],
)
def test_an_error_decides_the_outcome_and_its_text_is_not_recorded(
    operations: Away, error: BaseException, outcome: Outcome
) -> None:
    def carry_out() -> None:
        with running(operations) as operation:
            operation.advance(2)
            raise error

    with pytest.raises(type(error)):
        carry_out()
    ended = only(operations)
    assert (ended.outcome, ended.done) == (outcome, 2)
    assert ended.result == ({"error": type(error).__name__} if outcome is Outcome.FAILED else {})


def test_it_may_say_itself_how_it_ends(operations: Away) -> None:
    with running(operations) as operation:
        operation.ends_as = Outcome.INTERRUPTED
    assert only(operations).outcome is Outcome.INTERRUPTED


def test_its_progress_is_recorded_while_a_step_lasts(operations: Away) -> None:
    with running(operations) as operation:
        operation.advance(2)
        until(lambda: only(operations).done == 2)
        seen = only(operations).seen_at
        until(lambda: only(operations).seen_at > seen)


def test_it_stops_at_its_next_step_once_somebody_asked_for_it(operations: Away) -> None:
    steps = count(1)

    def carry_out() -> None:
        with running(operations) as operation:
            assert operations.request_cancel(only(operations).id, "grace")
            repeat(lambda: operation.advance(next(steps)))

    with pytest.raises(OperationCancelled, match="Cancelled by grace"):
        carry_out()
    ended = only(operations)
    assert (ended.outcome, ended.done, ended.result) == (Outcome.CANCELLED, next(steps) - 1, {})


def test_it_stops_during_a_pause_too(operations: Away) -> None:
    pauses: list[float] = []

    def carry_out() -> None:
        with running(operations, pause=pauses.append) as operation:
            operations.request_cancel(only(operations).id, "grace")
            repeat(lambda: operation.pause(0.1))

    with pytest.raises(OperationCancelled):
        carry_out()
    assert set(pauses) == {0.1}


def test_it_stops_between_two_steps_where_its_pause_ends_it(operations: Away) -> None:
    def stop(seconds: float) -> None:
        assert seconds == 0
        raise Interrupted("a signal")

    def carry_out() -> None:
        with running(operations, pause=stop) as operation:
            operation.advance(1)
            operation.advance(2)

    with pytest.raises(Interrupted):
        carry_out()
    assert (only(operations).outcome, only(operations).done) == (Outcome.INTERRUPTED, 1)


def test_each_step_is_reported_also_the_one_that_it_stops_after(operations: Away) -> None:
    reported: list[Progress] = []

    def report(progress: Progress) -> None:
        reported.append(progress)
        if progress.done == 2:
            raise Interrupted("a signal")

    def carry_out() -> None:
        with running(operations, report=report) as operation:
            operation.advance(1, left=1)
            operation.advance(2)

    with pytest.raises(Interrupted):
        carry_out()
    assert reported == [Progress(1, 4, {"left": 1}), Progress(2, 4, {"left": 1})]
    assert only(operations).done == 2


def test_what_came_of_it_is_recorded_with_its_outcome(operations: Away) -> None:
    with running(operations) as operation:
        operation.advance(1, left=1)
        operation.note(refused="too many")
    assert only(operations).result == {"left": 1, "refused": "too many"}


def test_it_stops_once_somebody_resumed_it_elsewhere(operations: Away) -> None:
    def carry_out() -> None:
        with running(operations) as operation:
            operation.advance(1)
            operations.is_away = True
            until(lambda: operations.refused)
            operations.pass_time(2 * DEAD_AFTER)
            resuming = OperationRequest("replay", "hedy", How.CLI, resumes=operation.id)
            operations.begin(resuming, UUID(int=1))
            operations.is_away = False
            repeat(operation.check)

    with pytest.raises(OperationLost):
        carry_out()
    interrupted = operations.find(1)
    assert interrupted is not None
    assert interrupted.outcome is Outcome.INTERRUPTED


def test_it_goes_on_while_the_ledger_is_away(operations: Away) -> None:
    with running(operations) as operation:
        operations.is_away = True
        until(lambda: operations.refused > 2)
        operation.advance(3)
        operations.is_away = False
    assert (only(operations).outcome, only(operations).done) == (Outcome.COMPLETED, 3)


def test_its_outcome_is_recorded_when_the_ledger_is_back(operations: Away) -> None:
    back = threading.Timer(0.05, lambda: setattr(operations, "is_away", False))
    with running(operations) as operation:
        operation.advance(4)
        operations.is_away = True
        back.start()
    assert operations.refused
    assert only(operations).outcome is Outcome.COMPLETED


def test_without_the_ledger_it_ends_all_the_same_and_reads_as_interrupted(
    operations: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.02)
    with running(operations):
        operations.is_away = True
    assert operations.refused
    operations.pass_time(2 * DEAD_AFTER)
    assert only(operations).outcome is Outcome.INTERRUPTED


def test_one_that_cannot_be_recorded_does_not_begin(operations: Away) -> None:
    request = OperationRequest("replay", "ada", How.CLI, resumes=7)
    with pytest.raises(Exception, match="cannot be resumed"), recorded(operations, request):
        pytest.fail("it began")


def test_lazily_nothing_is_recorded_of_what_does_nothing(operations: Away) -> None:
    with running(operations, lazily=True) as operation:
        operation.check()
        assert operations.newest(OperationFilter(), 9) == []
    assert operations.newest(OperationFilter(), 9) == []


def test_lazily_it_is_recorded_from_its_first_step_on(operations: Away) -> None:
    with running(operations, lazily=True) as operation:
        operation.advance(1)
        assert only(operations).outcome is Outcome.RUNNING
    assert only(operations).outcome is Outcome.COMPLETED


def test_its_thread_ends_with_it(operations: Away) -> None:
    with running(operations):
        assert "operation" in [thread.name for thread in threading.enumerate()]
    assert "operation" not in [thread.name for thread in threading.enumerate()]
