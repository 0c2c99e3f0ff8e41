from dataclasses import replace

import pytest

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import PIPELINE, Batch, Result, compose
from kratos_sync.application.pipeline.batch import CallNext, Middleware
from kratos_sync.testing.ledger import InMemoryLedger
from tests.application.delivering import deliver_to
from tests.domain.people import ADA, GRACE, cause
from tests.suites.occurrences import WEBHOOK, updated


@pytest.fixture
def batch(ledger: InMemoryLedger) -> Batch:
    return Batch(SyncKratosIdentity, (cause(1),), ledger.unit_of_work(), ledger)


def noting(name: str, notes: list[str]) -> Middleware:
    def middleware(call_next: CallNext, batch: Batch) -> Result:
        notes.append(f"{name} in")
        result = call_next(batch)
        notes.append(f"{name} out")
        return result

    return middleware


def noting_core(notes: list[str]) -> CallNext:
    def core(batch: Batch) -> Result:
        notes.append("consume")
        return Result(batch.started)

    return core


def test_the_pipeline_reads_from_the_outside_in() -> None:
    assert [middleware.__name__ for middleware in PIPELINE] == [
        "isolate_failures",
        "record_failure",
        "retry_conflicts",
        "log_outcome",
        "bound_memory",
        "commit_transaction",
        "open_inbox",
        "publish_raised_events",
    ]


def test_the_first_middleware_is_the_outermost(batch: Batch) -> None:
    notes: list[str] = []

    compose((noting("log", notes), noting("commit", notes)), noting_core(notes))(batch)

    assert notes == ["log in", "commit in", "consume", "commit out", "log out"]


def test_a_middleware_may_call_the_rest_again(batch: Batch) -> None:
    notes: list[str] = []

    def twice(call_next: CallNext, batch: Batch) -> Result:
        call_next(batch)
        return call_next(batch)

    compose((twice, noting("commit", notes)), noting_core(notes))(batch)

    assert notes == 2 * ["commit in", "consume", "commit out"]


def test_without_middlewares_the_core_is_left(batch: Batch) -> None:
    result = Result(batch.started)

    assert compose((), lambda _: result)(batch) is result


def test_a_batch_is_served_by_one_commit(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1, ADA), WEBHOOK)
    ledger.publish(updated(2, GRACE), WEBHOOK)

    deliver_to(SyncKratosIdentity, ledger)

    assert {each.id for each in ledger.identities} == {ADA, GRACE}
    assert ledger.commits == 1


def test_a_part_of_a_batch_starts_when_its_turn_comes(batch: Batch) -> None:
    late = replace(batch, started=batch.started._replace(monotonic=batch.started.monotonic - 100))

    part = late.part(batch.event_ids[:1])

    assert part.event_ids == batch.event_ids[:1]
    assert part.started.elapsed < late.started.elapsed
    assert part.started.at >= late.started.at


def test_a_batch_cannot_be_changed(batch: Batch) -> None:
    with pytest.raises(AttributeError):
        batch.consumer = SyncKratosIdentity  # type: ignore[misc]
