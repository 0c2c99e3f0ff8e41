"""Asking Kratos about who is said to have changed, in memory."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import (
    KratosNotConfigured,
    KratosRefused,
    KratosUnavailable,
)
from kratos_sync.application.retry_delays import LONGEST_WAIT
from kratos_sync.domain.events import KratosIdentityGone, KratosIdentityHinted
from kratos_sync.testing.ledger import Delivery, InMemoryLedger
from tests.application.delivering import deliver_everything, deliver_to
from tests.domain.people import ADA, GRACE, LOYAL, document
from tests.suites.occurrences import MARY, WEBHOOK, hinted

FETCH = FetchKratosIdentity.name
ADAS = document(traits={"email": "ada@example.org", "loyalty": LOYAL}, metadata_admin={"n": LOYAL})


def receive(ledger: InMemoryLedger, *hints: KratosIdentityHinted) -> None:
    for hint in hints:
        assert ledger.publish(hint, WEBHOOK)


def recorded(ledger: InMemoryLedger) -> list[str]:
    return [event.name for event in ledger.events.values() if event.source == FETCH]


def test_what_kratos_says_is_recorded_exactly(ledger: InMemoryLedger) -> None:
    ledger.kratos.people.put(ADAS)
    receive(ledger, hinted(1))

    deliver_everything(ledger)

    (ada,) = ledger.identities
    assert ada.traits == ADAS["traits"]
    assert ada.metadata_admin == {"n": LOYAL}
    assert ledger.attempts.pop(0).outcome == "succeeded"
    assert recorded(ledger) == ["kratos_identity.updated"]


def test_who_is_not_there_is_gone(ledger: InMemoryLedger) -> None:
    receive(ledger, hinted(1))

    deliver_everything(ledger)

    assert recorded(ledger)[0] == KratosIdentityGone.name
    assert [each.deleted_at for each in ledger.identities] == [ledger.now]


def test_ten_hints_are_one_question_and_one_answer(ledger: InMemoryLedger) -> None:
    ledger.kratos.people.put(ADAS)
    receive(ledger, *(hinted(number) for number in range(10)))

    deliver_to(FetchKratosIdentity, ledger)

    assert ledger.kratos.requests == 1
    assert recorded(ledger) == ["kratos_identity.updated"]
    assert not ledger.due(FETCH)


def test_a_batch_about_many_is_one_question_and_one_for_each_who_is_not_there(
    ledger: InMemoryLedger,
) -> None:
    ledger.kratos.people.put(ADAS)
    ledger.kratos.people.put(document(id=str(GRACE)))
    receive(ledger, hinted(1), hinted(2, GRACE), hinted(3, MARY), hinted(4), hinted(5, MARY))

    deliver_to(FetchKratosIdentity, ledger)

    assert ledger.kratos.requests == 2
    assert sorted(recorded(ledger)) == ["kratos_identity.gone"] + 2 * ["kratos_identity.updated"]


def test_a_hint_from_before_the_last_question_is_answered_by_it(ledger: InMemoryLedger) -> None:
    ledger.kratos.people.put(ADAS)
    receive(ledger, hinted(1), hinted(2))
    ledger.now += timedelta(seconds=1)
    deliver_to(FetchKratosIdentity, ledger, hinted(2).id)

    deliver_to(FetchKratosIdentity, ledger)

    assert ledger.kratos.requests == 1
    assert not ledger.due(FETCH)


def test_a_hint_from_after_it_is_a_question_of_its_own(ledger: InMemoryLedger) -> None:
    ledger.kratos.people.put(ADAS)
    for number in (1, 2):
        receive(ledger, hinted(number))
        ledger.now += timedelta(seconds=1)
        deliver_to(FetchKratosIdentity, ledger)

    assert ledger.kratos.requests == 2


def test_a_kratos_that_is_away_is_nobodys_failure_however_long(ledger: InMemoryLedger) -> None:
    ledger.kratos.people.put(ADAS)
    ledger.kratos.fail(50)
    receive(ledger, hinted(1), hinted(2, GRACE))

    for _ in range(60):
        ledger.now += 2 * LONGEST_WAIT
        deliver_everything(ledger)

    assert ledger.kratos.requests == 52
    assert {attempt.outcome for attempt in ledger.attempts} == {"postponed", "succeeded"}
    assert {attempt.number for attempt in ledger.attempts} == {1}
    assert len(list(ledger.identities)) == 2


def test_a_kratos_that_is_away_is_asked_once_for_a_whole_batch(ledger: InMemoryLedger) -> None:
    ledger.kratos.fail()
    receive(ledger, *(hinted(number, who) for number, who in enumerate((ADA, GRACE, MARY))))

    deliver_to(FetchKratosIdentity, ledger)

    assert ledger.kratos.requests == 1
    assert [attempt.outcome for attempt in ledger.attempts] == 3 * ["postponed"]


@pytest.mark.parametrize("asked_for", [timedelta(seconds=40), timedelta(minutes=10)])
def test_kratos_is_not_called_for_as_long_as_it_asks(
    ledger: InMemoryLedger, asked_for: timedelta
) -> None:
    ledger.kratos.fail(error=KratosUnavailable("the test made it rest", asked_for))
    receive(ledger, hinted(1, at=datetime.now(UTC)))

    deliver_to(FetchKratosIdentity, ledger)

    wait = ledger.deliveries[FETCH, hinted(1).id].due_at - ledger.now
    assert asked_for <= wait <= 1.3 * asked_for


def test_what_is_kept_of_a_wait_says_why_in_a_few_lines(ledger: InMemoryLedger) -> None:
    ledger.kratos.fail(error=KratosUnavailable("no connection"))
    receive(ledger, hinted(1))

    deliver_to(FetchKratosIdentity, ledger)

    (attempt,) = ledger.attempts
    assert attempt.error is not None
    assert attempt.error.endswith("Kratos' Admin API is not available: no connection")
    assert len(attempt.error) < 2_500


def test_a_refusal_is_a_failed_attempt_with_a_backoff(ledger: InMemoryLedger) -> None:
    ledger.kratos.fail(error=KratosRefused("it answered 401", 401))
    receive(ledger, hinted(1), hinted(2, GRACE))

    deliver_to(FetchKratosIdentity, ledger)

    assert [attempt.outcome for attempt in ledger.attempts] == 2 * ["failed"]
    assert ledger.deliveries[FETCH, hinted(1).id].due_at > ledger.now
    assert not ledger.deliveries[FETCH, hinted(1).id].is_dead


def test_an_identity_that_kratos_gives_no_answer_about_holds_up_no_other(
    ledger: InMemoryLedger,
) -> None:
    ledger.kratos.people.put(ADAS)
    refusal = KratosRefused("its answer is no identity", 200)
    receive(ledger, hinted(1, GRACE), hinted(2), hinted(3, MARY))

    def spoil(number: int) -> None:
        ledger.kratos.fail(1 if number in {1, 2} else 0, refusal)

    ledger.kratos.before = spoil
    deliver_to(FetchKratosIdentity, ledger)

    outcomes = {attempt.event_id: attempt.outcome for attempt in ledger.attempts}
    assert outcomes == {
        hinted(1).id: "failed",
        hinted(2).id: "succeeded",
        hinted(3).id: "succeeded",
    }
    assert sorted(recorded(ledger)) == ["kratos_identity.gone", "kratos_identity.updated"]


def test_a_worker_that_knows_no_kratos_leaves_hints_to_another(ledger: InMemoryLedger) -> None:
    ledger.kratos.fail(error=KratosNotConfigured())
    receive(ledger, hinted(1))

    deliver_to(FetchKratosIdentity, ledger)

    (attempt,) = ledger.attempts
    assert (attempt.outcome, attempt.number) == ("postponed", 1)
    assert ledger.deliveries[FETCH, hinted(1).id].due_at > ledger.now + timedelta(seconds=50)


def test_an_answer_carries_on_the_trace_of_its_hint(ledger: InMemoryLedger) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ledger.publish(hinted(1), Provenance("webhook", traceparent=trace))

    deliver_to(FetchKratosIdentity, ledger)

    (answer,) = [event for event in ledger.events.values() if event.source == FETCH]
    assert answer.traceparent == trace


def test_a_hint_that_is_replayed_brings_a_new_answer(ledger: InMemoryLedger) -> None:
    ledger.kratos.people.put(ADAS)
    receive(ledger, hinted(1))
    deliver_to(FetchKratosIdentity, ledger)
    ledger.now += timedelta(minutes=1)
    ledger.deliveries[FETCH, hinted(1).id] = Delivery(ledger.now, recorded_at=ledger.now)

    deliver_to(FetchKratosIdentity, ledger)

    assert recorded(ledger) == 2 * ["kratos_identity.updated"]


def test_what_the_hooks_label_says_is_recorded_for_each_hint(ledger: InMemoryLedger) -> None:
    ledger.kratos.people.put(ADAS)
    for hint, hook in ((hinted(1), "login.after.password"), (hinted(2), "recovery.after")):
        ledger.publish(hint, replace(WEBHOOK, hook=hook))

    deliver_to(FetchKratosIdentity, ledger)

    names = sorted(each.name for each in ledger.events.values() if each.source == FETCH)
    assert names == ["identity.logged_in", "identity.recovered", "kratos_identity.updated"]
