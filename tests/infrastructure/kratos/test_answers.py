"""Which hints need no question, by the database's clock."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from tests.domain.people import ADA, document
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, hinted


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    ledger = PostgresLedger(engine)
    ledger.kratos.people.put(document())
    return ledger


def fetch(ledger: PostgresLedger, *numbers: int) -> None:
    ids = [hinted(number).id for number in numbers]
    deliver(Batch(FetchKratosIdentity, ids, ledger.unit_of_work(), ledger))


def receive(ledger: PostgresLedger, *numbers: int) -> None:
    for number in numbers:
        assert ledger.publish(hinted(number), WEBHOOK)


def left(ledger: PostgresLedger) -> int:
    return sum(consumer == FetchKratosIdentity.name for consumer, _ in ledger.deliveries)


def test_a_hint_of_another_batch_is_answered_by_a_question_asked_after_it(
    ledger: PostgresLedger,
) -> None:
    receive(ledger, 1, 2, 3)
    fetch(ledger, 2)

    fetch(ledger, 1, 3)

    assert (ledger.kratos.requests, left(ledger)) == (1, 0)
    assert [attempt.outcome for attempt in ledger.attempts] == 3 * ["succeeded"]


def test_a_hint_that_came_while_kratos_answered_is_a_question_of_its_own(
    ledger: PostgresLedger,
) -> None:
    receive(ledger, 1)
    ledger.kratos.before = lambda number: receive(ledger, 2) if number == 1 else None
    fetch(ledger, 1)

    fetch(ledger, 2)

    assert (ledger.kratos.requests, left(ledger)) == (2, 0)


@pytest.mark.parametrize("time", ["infinity", "-infinity"])
def test_a_hint_of_a_time_beyond_the_calendar_is_answered(
    ledger: PostgresLedger, time: str
) -> None:
    receive(ledger, 1)
    ledger.query(
        "UPDATE kratos_sync.events SET occurred_at = CAST(:time AS timestamptz)", time=time
    )

    fetch(ledger, 1)

    assert [attempt.outcome for attempt in ledger.attempts] == ["succeeded"]


def test_a_replayed_hint_is_asked_about_again(ledger: PostgresLedger) -> None:
    receive(ledger, 1)
    fetch(ledger, 1)
    ledger.query(
        "INSERT INTO kratos_sync.deliveries (event_id, consumer, subject)"
        " VALUES (:id, 'FetchKratosIdentity', :who)",
        id=hinted(1).id,
        who=ADA,
    )

    fetch(ledger, 1)

    assert ledger.kratos.requests == 2


def test_an_answer_from_the_future_answers_nothing(ledger: PostgresLedger) -> None:
    ledger.query(
        "INSERT INTO kratos_sync.kratos_answers VALUES (:who, now() + interval '1 h')", who=ADA
    )
    receive(ledger, 1)

    fetch(ledger, 1)

    assert ledger.kratos.requests == 1
    (answer,) = ledger.query("SELECT asked_at <= now() AS counts FROM kratos_sync.kratos_answers")
    assert answer["counts"]


def test_the_answer_is_dated_by_the_database_before_kratos_is_asked(
    ledger: PostgresLedger,
) -> None:
    receive(ledger, 1)
    seen = []
    ledger.kratos.before = lambda _: seen.append(ledger.now)

    fetch(ledger, 1)

    (recorded,) = [
        event for event in ledger.events.values() if event.source == "FetchKratosIdentity"
    ]
    (asked,) = ledger.query("SELECT asked_at FROM kratos_sync.kratos_answers")
    assert recorded.occurred_at == asked["asked_at"]
    assert timedelta(0) <= seen[0] - recorded.occurred_at < timedelta(seconds=5)


def test_hints_about_erased_identities_are_not_asked_about(ledger: PostgresLedger) -> None:
    receive(ledger, 1)
    ledger.query(
        "INSERT INTO kratos_sync.kratos_identities (id, synced_at, version, forgotten_at)"
        " VALUES (:who, now(), 1, now())",
        who=ADA,
    )

    fetch(ledger, 1)

    assert (ledger.kratos.requests, left(ledger)) == (0, 0)
