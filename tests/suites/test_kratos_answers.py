"""What hints come to, in memory and on PostgreSQL."""

from datetime import timedelta

from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.kratos import KratosRefused, KratosUnavailable
from kratos_sync.domain.events import KratosIdentityHinted
from tests.domain.people import ADA, GRACE, LOYAL, document, minutes, written
from tests.suites.ledgers import Ledger
from tests.suites.occurrences import MARY, WEBHOOK, hinted

FETCH = FetchKratosIdentity.name


def receive(ledger: Ledger, *hints: KratosIdentityHinted) -> None:
    for hint in hints:
        assert ledger.publish(hint, WEBHOOK)


def fetch(ledger: Ledger, *numbers: int) -> None:
    ids = [hinted(number).id for number in numbers]
    deliver(Batch(FetchKratosIdentity, ids, ledger.unit_of_work(), ledger))


def recorded(ledger: Ledger) -> list[tuple[str, str]]:
    """What was recorded, with its identity."""
    return sorted(
        (str(event.subject), event.name)
        for event in ledger.events.values()
        if event.source == FETCH
    )


def outcomes(ledger: Ledger) -> dict[int, str]:
    numbers = {hinted(number).id: number for number in range(20)}
    return {
        numbers[attempt.event_id]: attempt.outcome
        for attempt in ledger.attempts
        if attempt.consumer == FETCH
    }


def test_an_answer_is_recorded_with_its_consumers(ledger: Ledger) -> None:
    ledger.kratos.people.put(document(metadata_admin={"n": LOYAL}))
    receive(ledger, hinted(1), hinted(2, GRACE))

    fetch(ledger, 1, 2)

    assert recorded(ledger) == [
        (str(GRACE), "kratos_identity.gone"),
        (str(ADA), "kratos_identity.updated"),
    ]
    assert sorted(consumer for consumer, _ in ledger.deliveries) == [
        "DeleteKratosIdentity",
        "SyncKratosIdentity",
    ]
    (exact,) = [e for e in ledger.events.values() if e.name == "kratos_identity.updated"]
    assert str(LOYAL) in exact.payload


def test_ten_hints_of_a_batch_cost_one_question(ledger: Ledger) -> None:
    ledger.kratos.people.put(document())
    receive(ledger, *map(hinted, range(10)))

    fetch(ledger, *range(10))

    assert ledger.kratos.requests == 1
    assert recorded(ledger) == [(str(ADA), "kratos_identity.updated")]
    assert outcomes(ledger) == dict.fromkeys(range(10), "succeeded")


def test_one_that_is_refused_is_rolled_back_alone(ledger: Ledger) -> None:
    ledger.kratos.people.put(document())
    receive(ledger, hinted(1), hinted(2, GRACE), hinted(3, MARY))

    def refuse_first_and_third(number: int) -> None:
        ledger.kratos.fail(1 if number in {1, 3} else 0, KratosRefused("it answered 400", 400))

    ledger.kratos.before = refuse_first_and_third
    fetch(ledger, 1, 2, 3)

    assert outcomes(ledger) == {1: "succeeded", 2: "failed", 3: "succeeded"}
    assert ledger.kratos.requests == 4
    assert len(recorded(ledger)) == 2


def test_what_was_answered_is_recorded_though_kratos_fails_then(ledger: Ledger) -> None:
    ledger.kratos.people.put(document())
    receive(ledger, hinted(1, GRACE), hinted(2), hinted(3, MARY))

    def leave_after_the_first(number: int) -> None:
        ledger.kratos.fail(1 if number > 1 else 0, KratosUnavailable("no connection"))

    ledger.kratos.before = leave_after_the_first
    fetch(ledger, 1, 2, 3)

    assert outcomes(ledger) == {1: "postponed", 2: "succeeded", 3: "postponed"}
    assert ledger.kratos.requests == 2
    assert recorded(ledger) == [(str(ADA), "kratos_identity.updated")]
    assert {
        number.attempts for (name, _), number in ledger.deliveries.items() if name == FETCH
    } == {0}


def test_a_registration_before_kratos_failed_is_still_a_registration(
    ledger: Ledger,
) -> None:
    created_at, heard_at = minutes(0), minutes(1)
    assert ledger.now - heard_at > timedelta(minutes=30)
    ledger.kratos.people.put(document(created_at=written(created_at)))
    receive(ledger, hinted(1, at=heard_at), hinted(2, at=ledger.now))

    fetch(ledger, 2)
    (answer,) = [event for event in ledger.events.values() if event.source == FETCH]
    deliver(Batch(SyncKratosIdentity, [answer.id], ledger.unit_of_work(), ledger))

    assert answer.occurred_at > heard_at
    assert "identity.registered" in [event.name for event in ledger.events.values()]


def test_an_identity_already_held_needs_no_first_hint(ledger: Ledger) -> None:
    ledger.kratos.people.put(document())
    for number in (1, 2):
        receive(ledger, hinted(number))
        fetch(ledger, number)
        *_, answer = [event for event in ledger.events.values() if event.source == FETCH]
        deliver(Batch(SyncKratosIdentity, [answer.id], ledger.unit_of_work(), ledger))

    answers = [event.payload for event in ledger.events.values() if event.source == FETCH]
    assert sorted("heard_at" in payload for payload in answers) == [False, True]
