"""Operations that are carried out by the console: how many at a time, and which wait for which."""

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from starlette.datastructures import FormData
from starlette.requests import Request

from kratos_sync.api.http.console.app import Call, See, WrongInput
from kratos_sync.api.http.console.changes import AT_ONCE, MOST_WAITING, Changes, requested
from kratos_sync.application.operations import RunningOperation
from kratos_sync.application.ports.operations import OperationFilter
from tests.api.http.console.visiting import EVERYTHING
from tests.fakes.operations import InMemoryOperations
from tests.waiting import DEADLINE_SECONDS, until

SCOPE = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": []}


class Carried:
    """Carries out operations that last until they are let go."""

    def __init__(self) -> None:
        self.changes = Changes(InMemoryOperations())
        self.goes_on = threading.Event()
        self.running: list[str] = []

    def out(self, operation: str, *, waits: bool = True, is_long: bool = False) -> See:
        """Send the form of an operation."""
        form = FormData({"reason": "a test", "ticket": uuid4().hex})
        call = Call(Request(SCOPE), EVERYTHING, form)

        def work(_: RunningOperation) -> None:
            self.running.append(operation)
            if waits:
                self.goes_on.wait(DEADLINE_SECONDS)

        return self.changes.carry_out(call, requested(call, operation), work, is_long=is_long)


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> Iterator[Carried]:
    monkeypatch.setattr("kratos_sync.api.http.console.changes.QUICK_SECONDS", 0.01)
    carried = Carried()
    yield carried
    carried.goes_on.set()


@pytest.mark.parametrize("operation", ["replay", "reconcile", "retry"])
def test_long_operations_hold_up_none_that_are_quick(carried: Carried, operation: str) -> None:
    for _ in range(AT_ONCE + 1):
        carried.out(operation, is_long=operation == "retry")
    carried.out("pause", waits=False)
    until(lambda: "pause" in carried.running)
    assert carried.running.count(operation) == AT_ONCE


def test_so_many_wait_and_no_more_and_no_others_are_refused(carried: Carried) -> None:
    for _ in range(MOST_WAITING):
        carried.out("replay")
    with pytest.raises(WrongInput, match="Too many operations are running"):
        carried.out("replay")
    carried.out("sync", waits=False)
    until(lambda: "sync" in carried.running)


def test_the_version_changes_with_each_change(carried: Carried) -> None:
    before = carried.changes.version()
    carried.out("pause", waits=False)
    until(lambda: carried.changes.version() == before + 2)


def test_of_forms_that_arrive_at_the_same_moment_one_begins_an_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operations, both = InMemoryOperations(), threading.Barrier(2)
    changes = Changes(operations)
    form = FormData({"reason": "a test", "ticket": "t"})
    began: list[bool] = []

    def send() -> None:
        call = Call(Request(SCOPE), EVERYTHING, form)
        both.wait(DEADLINE_SECONDS)
        with changes.carried_out_here(call, requested(call, "stop")) as operation:
            began.append(operation is not None)

    begin = operations.begin

    def begin_slowly(*given: Any) -> int:
        # The other one has time to come this far.
        threading.Event().wait(0.05)
        return begin(*given)

    monkeypatch.setattr(operations, "begin", begin_slowly)
    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert sorted(began) == [False, True]
    assert [each.operation for each in operations.newest(OperationFilter(), 9)] == ["stop"]
