"""What PostgreSQL itself refuses, and keeps, of the record of operations."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.application.ports.operations import (
    LONGEST_NAME,
    LONGEST_REASON,
    How,
    Operation,
    OperationRequest,
    Outcome,
    Progress,
)
from kratos_sync.infrastructure.ledger.operations import PostgresOperations, unended_operations
from tests.infrastructure.ledger.test_purge import DAY, run
from tests.suites.operations import make_older

RUNNER = UUID(int=1)
REQUEST = OperationRequest("sync", "ada", How.CLI, "asked by letter")
RESTRICT_VIOLATION, CHECK_VIOLATION = "23001", "23514"


@pytest.fixture
def operations(engine: Engine) -> PostgresOperations:
    return PostgresOperations(engine)


def found(operations: PostgresOperations, number: int) -> Operation:
    operation = operations.find(number)
    assert operation is not None
    return operation


@pytest.mark.parametrize(
    "change",
    [
        "operation = 'erase'",
        "by = 'grace'",
        "role = 'grace'",
        "how = 'schedule'",
        "reason = NULL",
        "subject = gen_random_uuid()",
        "consumer = 'Greet'",
        "scope = '{\"rate\": 1}'",
        "resumes = 1",
        "started_at = now() - interval '1 year'",
        "runner = gen_random_uuid()",
    ],
)
def test_not_even_the_owner_changes_who_what_why_and_when(
    engine: Engine, operations: PostgresOperations, change: str
) -> None:
    number = operations.begin(REQUEST, RUNNER)
    before = found(operations, number)
    with pytest.raises(DBAPIError) as refused:
        run(engine, f"UPDATE kratos_sync.operations SET {change}")
    assert getattr(refused.value.orig, "sqlstate", None) == RESTRICT_VIOLATION
    assert found(operations, number) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE kratos_sync.operations SET outcome = 'failed'",
        "UPDATE kratos_sync.operations SET outcome = 'running', ended_at = NULL",
        "UPDATE kratos_sync.operations SET done = 7",
        "UPDATE kratos_sync.operations SET seen_at = now()",
        "UPDATE kratos_sync.operations SET cancel_requested_by = 'x', cancel_requested_at = now()",
        "DELETE FROM kratos_sync.operations",
    ],
)
def test_what_has_ended_is_neither_changed_nor_deleted(
    engine: Engine, operations: PostgresOperations, statement: str
) -> None:
    number = operations.begin(REQUEST, RUNNER)
    operations.note(number, RUNNER, Progress(1), Outcome.COMPLETED)
    before = found(operations, number)
    with pytest.raises(DBAPIError) as refused:
        run(engine, statement)
    assert getattr(refused.value.orig, "sqlstate", None) == RESTRICT_VIOLATION
    assert found(operations, number) == before


def test_who_asked_to_cancel_it_stays(engine: Engine, operations: PostgresOperations) -> None:
    operations.request_cancel(operations.begin(REQUEST, RUNNER), "grace")
    with pytest.raises(DBAPIError):
        run(engine, "UPDATE kratos_sync.operations SET cancel_requested_by = 'hedy'")


@pytest.mark.parametrize(
    "request_",
    [
        OperationRequest("sync", "a" * (LONGEST_NAME + 1), How.CLI),
        OperationRequest("sync", "", How.CLI),
        OperationRequest("sync", "ada", How.CLI, "a" * (LONGEST_REASON + 1)),
        OperationRequest("sync", "ada", How.CLI, scope={"x": "a" * 4_000}),
        OperationRequest("", "ada", How.CLI),
    ],
)
def test_what_is_recorded_is_bounded(
    operations: PostgresOperations, request_: OperationRequest
) -> None:
    with pytest.raises(DBAPIError) as refused:
        operations.begin(request_, RUNNER)
    assert getattr(refused.value.orig, "sqlstate", None) == CHECK_VIOLATION


def test_the_longest_are_recorded_and_texts_that_postgresql_cannot_hold(
    operations: PostgresOperations,
) -> None:
    longest = OperationRequest("sync", "ä" * LONGEST_NAME, How.CLI, "ä" * LONGEST_REASON)
    assert found(operations, operations.begin(longest, RUNNER)).by == longest.by
    odd = OperationRequest("sync", "a\x00\ud800", How.CLI, "b\x00", scope={"x": "c\x00"})
    kept = found(operations, operations.begin(odd, RUNNER))
    assert (kept.by, kept.reason) == ("a\N{REPLACEMENT CHARACTER}\\ud800", "b\ufffd")


def test_the_role_is_the_one_that_postgresql_knows(
    engine: Engine, operations: PostgresOperations
) -> None:
    with engine.connect() as connection:
        role = connection.execute(text("SELECT session_user")).scalar_one()
    assert found(operations, operations.begin(REQUEST, RUNNER)).role == role


def test_status_shows_what_runs_and_for_a_day_what_died(
    engine: Engine, operations: PostgresOperations
) -> None:
    numbers = [operations.begin(REQUEST, uuid4()) for _ in range(3)]
    make_older(engine, 2 * DAY, numbers[0])
    make_older(engine, DAY / 2, numbers[1])
    operations.note(operations.begin(REQUEST, RUNNER), RUNNER, Progress(), Outcome.FAILED)
    with engine.connect() as connection:
        shown = [(each.id, each.outcome) for each in unended_operations(connection)]
    assert shown == [(numbers[2], Outcome.RUNNING), (numbers[1], Outcome.INTERRUPTED)]


def test_many_ended_ones_are_not_read_to_find_those_that_run(engine: Engine) -> None:
    run(
        engine,
        "INSERT INTO kratos_sync.operations"
        " (operation, by, role, how, scope, runner, outcome, ended_at)"
        " SELECT 'sync', 'ada', 'ada', 'cli', '{}', gen_random_uuid(), 'completed', now()"
        " FROM generate_series(1, 20000)",
    )
    run(engine, "ANALYZE kratos_sync.operations")
    plan = "EXPLAIN SELECT id FROM kratos_sync.audit WHERE ended_at IS NULL ORDER BY id DESC"
    with engine.connect() as connection:
        lines = "\n".join(connection.execute(text(plan)).scalars())
    assert "operations_running" in lines
