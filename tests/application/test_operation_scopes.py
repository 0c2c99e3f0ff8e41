"""What is recorded of a filter, and read of it again."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from kratos_sync.application.operation_scopes import (
    NOT_KEPT,
    DeadLetterScope,
    PurgeScope,
    ReconcileScope,
    ReplayScope,
    Scope,
    ScopeNotKept,
)
from kratos_sync.application.ports.dead_letters import DeadLetterFilter
from kratos_sync.application.ports.history import UNKNOWN_ERROR
from kratos_sync.application.ports.operations import How, Operation, OperationRequest
from kratos_sync.application.ports.purge import Retention
from kratos_sync.application.ports.replay import EventRange
from tests.domain.people import ADA, minutes
from tests.fakes.operations import InMemoryOperations


def recorded(scope: Scope, **about: object) -> Operation:
    operations = InMemoryOperations()
    request = OperationRequest("x", "ada", How.CLI, scope=scope.to_json(), **about)  # type: ignore[arg-type]  # fields
    found = operations.find(operations.begin(request, uuid4()))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "wanted",
    [
        DeadLetterFilter(),
        DeadLetterFilter(
            uuid4(), "Greet", "identity.registered", "OSError", minutes(1), minutes(2)
        ),
        DeadLetterFilter(exception="acme.mail.<locals>.NotSent"),
        DeadLetterFilter(consumer="Greet", until=minutes(3)),
        DeadLetterFilter(exception=UNKNOWN_ERROR),
    ],
)
def test_a_filter_of_dead_letters_is_read_as_it_was_written(wanted: DeadLetterFilter) -> None:
    operation = recorded(DeadLetterScope.of_filter(wanted, 50), consumer=wanted.consumer)
    scope = DeadLetterScope.of(operation)
    assert (scope.to_filter(operation.consumer), scope.rate) == (wanted, 50)


@pytest.mark.parametrize("field", ["event", "exception"])
@pytest.mark.parametrize(
    "typed",
    ["ada@example.org", "Ada Lovelace", "+4915112345678", "49151123", "Zoë", "a" * 300, "", "a.1b"],
)
def test_a_text_that_has_not_the_form_of_a_name_is_not_recorded(field: str, typed: str) -> None:
    operation = recorded(DeadLetterScope.of_filter(DeadLetterFilter(**{field: typed})))  # type: ignore[arg-type]  # fields
    assert operation.scope == {field: NOT_KEPT}
    with pytest.raises(ScopeNotKept):
        DeadLetterScope.of(operation)


def test_a_range_is_read_as_it_was_written_and_from_where_it_stopped() -> None:
    wanted = EventRange("Greet", ("a.b", "a.c"), minutes(1), minutes(9), ADA, "webhook", "login")
    operation = recorded(ReplayScope.of_range(wanted, 50), consumer="Greet", subject=ADA)
    scope = ReplayScope.of(operation)
    assert (scope.to_range(operation), scope.rate) == (wanted, 50)
    operation.result["go_on_since"] = minutes(4).isoformat()  # type: ignore[index]  # the fake's
    assert scope.to_range(operation) == replace(wanted, since=minutes(4))


@pytest.mark.parametrize(
    "retention", [Retention(timedelta(days=90), timedelta(hours=36)), Retention(None, None)]
)
def test_a_retention_is_read_as_it_was_written(retention: Retention) -> None:
    scope = PurgeScope.of(recorded(PurgeScope.of_retention(retention)))
    assert scope.retention == retention


def test_a_reconciliation_s_scope_is_read_as_it_was_written() -> None:
    scope = ReconcileScope(7, 2.5)
    assert ReconcileScope.of(recorded(scope)) == scope
    dry = ReconcileScope(dry_run=True)
    assert ReconcileScope.of(recorded(dry)) == dry
    assert recorded(ReconcileScope()).scope == {}


def test_a_scope_of_another_form_is_not_guessed_at() -> None:
    without_rate = DeadLetterScope(since=minutes(1))
    with pytest.raises(ScopeNotKept, match="another release"):
        ReplayScope.of(recorded(without_rate))
