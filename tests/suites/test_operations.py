"""What the record of operations promises, in memory and on PostgreSQL."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from kratos_sync.application.ports.operations import (
    DEAD_AFTER,
    CannotBeResumed,
    How,
    Noted,
    OperationFilter,
    OperationRequest,
    Outcome,
    Progress,
)
from tests.domain.people import ADA
from tests.suites.operations import Record

DAY = timedelta(days=1)
ALL = OperationFilter()
RETRY = OperationRequest(
    "retry",
    "ada",
    How.CONSOLE,
    "the mail server is back",
    ADA,
    "Greet",
    {"exception": "OSError", "rate": 100, "names": ["a.b"], "since": None},
)
PURGE = OperationRequest("purge", "relay", How.SCHEDULE)
HALF = Progress(2, 4, {"left": 1})
ENDS = [each for each in Outcome if each is not Outcome.RUNNING]


def begun(record: Record, request: OperationRequest = RETRY, **changes: UUID) -> int:
    return record.operations.begin(request, changes.get("runner", uuid4()))


def outcome_of(record: Record, operation_id: int) -> Outcome:
    found = record.operations.find(operation_id)
    assert found is not None
    return found.outcome


def test_an_operation_that_has_begun_runs_and_says_who_what_and_why(record: Record) -> None:
    before = record.operations.now()
    found = record.operations.find(record.operations.begin(RETRY, uuid4(), 4))
    assert found is not None
    for name in ("operation", "by", "how", "reason", "subject", "consumer", "scope", "resumes"):
        assert getattr(found, name) == getattr(RETRY, name)
    assert (found.outcome, found.done, found.total, found.result) == (Outcome.RUNNING, 0, 4, {})
    assert before <= found.started_at <= record.operations.now()
    assert (found.ended_at, found.cancel_requested_by, found.cancel_requested_at) == (None,) * 3
    assert found.role


def test_there_is_no_operation_before_it_begins(record: Record) -> None:
    assert record.operations.find(1) is None
    assert record.operations.newest(ALL, 9) == []


def test_what_is_noted_of_a_running_operation_is_seen(record: Record) -> None:
    runner = uuid4()
    number = begun(record, runner=runner)
    assert record.operations.note(number, runner, HALF) == Noted(None)
    found = record.operations.find(number)
    assert found is not None
    assert Progress(found.done, found.total, found.result) == HALF
    assert found.outcome is Outcome.RUNNING
    assert found.seen_at >= found.started_at


@pytest.mark.parametrize("outcome", ENDS)
def test_an_outcome_is_final(record: Record, outcome: Outcome) -> None:
    runner = uuid4()
    number = begun(record, runner=runner)
    assert record.operations.note(number, runner, HALF, outcome) == Noted(None)
    ended = record.operations.find(number)
    assert ended is not None
    assert ended.outcome is outcome
    assert ended.ended_at is not None
    for later in Outcome:
        assert record.operations.note(number, runner, Progress(3), later) is None
    assert not record.operations.request_cancel(number, "grace")
    assert record.operations.find(number) == ended


def test_only_who_began_an_operation_says_how_far_it_is(record: Record) -> None:
    number = begun(record)
    assert record.operations.note(number, uuid4(), HALF, Outcome.COMPLETED) is None
    found = record.operations.find(number)
    assert found is not None
    assert (found.done, found.outcome) == (0, Outcome.RUNNING)


def test_one_that_is_not_noted_for_long_reads_as_interrupted_until_it_is_again(
    record: Record,
) -> None:
    runner = uuid4()
    number = begun(record, runner=runner)
    record.pass_time(DEAD_AFTER / 2)
    assert outcome_of(record, number) is Outcome.RUNNING
    record.pass_time(DEAD_AFTER)
    assert outcome_of(record, number) is Outcome.INTERRUPTED
    assert record.operations.newest(OperationFilter(only_running=True), 9) == []
    record.operations.note(number, runner, HALF)
    assert outcome_of(record, number) is Outcome.RUNNING


def test_a_request_to_cancel_reaches_the_runner_of_the_operation(record: Record) -> None:
    runner = uuid4()
    number = begun(record, runner=runner)
    assert record.operations.request_cancel(number, "grace")
    assert not record.operations.request_cancel(number, "hedy")
    assert record.operations.note(number, runner, HALF) == Noted("grace")
    found = record.operations.find(number)
    assert found is not None
    assert (found.cancel_requested_by, found.outcome) == ("grace", Outcome.RUNNING)
    assert found.cancel_requested_at is not None


def test_one_that_does_not_exist_is_neither_cancelled_nor_noted(record: Record) -> None:
    assert not record.operations.request_cancel(7, "grace")
    assert record.operations.note(7, uuid4(), HALF) is None


def test_they_are_listed_from_the_newest_on_page_by_page(record: Record) -> None:
    numbers = [begun(record) for _ in range(5)]
    pages, before = [], None
    while page := record.operations.newest(ALL, 2, before):
        pages.append([each.id for each in page])
        before = page[-1].id
    assert pages == [[numbers[4], numbers[3]], [numbers[2], numbers[1]], [numbers[0]]]


def test_a_filter_matches_name_person_time_and_whether_it_runs(record: Record) -> None:
    runner = uuid4()
    retry, purge = begun(record, runner=runner), begun(record, PURGE)
    record.pass_time(DAY)
    since = record.operations.now() - DAY / 2
    late = begun(record)

    def found(wanted: OperationFilter) -> list[int]:
        return [each.id for each in record.operations.newest(wanted, 9)]

    assert found(OperationFilter("purge")) == [purge]
    assert found(OperationFilter(by="ada")) == [late, retry]
    assert found(OperationFilter(since=since)) == [late]
    assert found(OperationFilter(only_running=True)) == [late]
    assert found(OperationFilter("purge", "ada")) == []


def resuming(number: int) -> OperationRequest:
    return OperationRequest("retry", "hedy", How.CLI, resumes=number)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED, Outcome.INTERRUPTED])
def test_what_did_not_complete_is_resumed_by_an_operation_of_its_own(
    record: Record, outcome: Outcome
) -> None:
    runner = uuid4()
    number = begun(record, runner=runner)
    record.operations.note(number, runner, HALF, outcome)
    ended = record.operations.find(number)
    later = record.operations.find(begun(record, resuming(number)))
    assert later is not None
    assert (later.by, later.resumes, later.outcome) == ("hedy", number, Outcome.RUNNING)
    assert record.operations.find(number) == ended


def test_resuming_a_dead_operation_ends_it_for_its_process_too(record: Record) -> None:
    runner = uuid4()
    number = begun(record, runner=runner)
    record.pass_time(2 * DEAD_AFTER)
    begun(record, resuming(number))
    assert outcome_of(record, number) is Outcome.INTERRUPTED
    assert record.operations.note(number, runner, HALF) is None


def test_what_runs_or_completed_or_never_began_is_not_resumed(record: Record) -> None:
    runner = uuid4()
    running, completed = begun(record), begun(record, runner=runner)
    record.operations.note(completed, runner, HALF, Outcome.COMPLETED)
    for number in (running, completed, 77):
        with pytest.raises(CannotBeResumed):
            begun(record, resuming(number))
    assert len(record.operations.newest(ALL, 9)) == 2


def test_an_operation_is_resumed_once(record: Record) -> None:
    number = begun(record)
    record.pass_time(2 * DEAD_AFTER)
    later = begun(record, resuming(number))
    with pytest.raises(CannotBeResumed):
        begun(record, resuming(number))
    record.pass_time(2 * DEAD_AFTER)
    assert begun(record, resuming(later))


def test_old_ones_are_removed_and_none_of_the_last_day_or_that_runs(record: Record) -> None:
    old = [begun(record) for _ in range(3)]
    runner = uuid4()
    running = begun(record, runner=runner)
    record.pass_time(3 * DAY)
    record.operations.note(running, runner, HALF)
    young = begun(record)
    record.pass_time(DAY / 2)
    record.operations.note(running, runner, HALF)

    assert record.operations.remove_older(4 * DAY, 9) == 0
    assert record.operations.remove_older(timedelta(), 2) == 2
    assert record.operations.remove_older(timedelta(), 2) == 1
    assert record.operations.remove_older(timedelta(), 2) == 0
    assert [each.id for each in record.operations.newest(ALL, 9)] == [young, running]
    assert old[0] < running
