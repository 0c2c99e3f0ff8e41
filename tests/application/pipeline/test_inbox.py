"""The inbox: consumed once, whatever comes again or is not understood."""

from datetime import timedelta

from kratos_sync.application.consumers.delete_from_kratos import DeleteFromKratos
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.testing.ledger import Delivery, InMemoryLedger, RecordedEvent
from tests.application.delivering import deliver_everything, deliver_to
from tests.domain.people import ADA, GRACE, cause, minutes
from tests.suites.occurrences import WEBHOOK, hinted, updated


def owe_something_unknown(ledger: InMemoryLedger, number: int, name: str) -> None:
    """What a newer release has recorded."""
    event_id = cause(number)
    ledger.events[event_id] = RecordedEvent(event_id, name, ADA, minutes(1), "{}", "webhook")
    ledger.deliveries[SyncKratosIdentity.name, event_id] = Delivery(ledger.now)


def test_a_redelivered_message_changes_nothing(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    deliver_everything(ledger)
    ada, attempts = ledger.identities.find(ADA), list(ledger.attempts)

    deliver_to(SyncKratosIdentity, ledger, cause(1))
    deliver_to(SyncKratosIdentity, ledger, cause(1), cause(1))

    assert ledger.identities.find(ADA) is ada
    assert ledger.attempts == attempts
    assert ledger.counts.by_day.total() == 1


def test_what_was_settled_already_is_left_out_of_a_batch(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1, ADA), WEBHOOK)
    deliver_to(SyncKratosIdentity, ledger)
    ledger.publish(updated(2, GRACE), WEBHOOK)

    deliver_to(SyncKratosIdentity, ledger, cause(1), cause(2))

    assert [each.event_id for each in ledger.attempts] == [cause(1), cause(2)]


def test_a_message_about_events_that_nobody_recorded_does_nothing(ledger: InMemoryLedger) -> None:
    deliver_to(SyncKratosIdentity, ledger, cause(7))

    assert (ledger.attempts, len(ledger.identities)) == ([], 0)


def test_an_unknown_event_is_postponed_and_named_and_stops_nobody(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1, ADA), WEBHOOK)
    owe_something_unknown(ledger, 2, "identity.knighted")
    owe_something_unknown(ledger, 3, "identity.betrothed")
    ledger.publish(updated(4, GRACE), WEBHOOK)

    deliver_to(SyncKratosIdentity, ledger)

    assert {each.id for each in ledger.identities} == {ADA, GRACE}
    assert [each.event_id for each in ledger.attempts] == [cause(1), cause(4)]
    knighted = ledger.deliveries[SyncKratosIdentity.name, cause(2)]
    betrothed = ledger.deliveries[SyncKratosIdentity.name, cause(3)]
    assert knighted.last_error == "UnknownEvent: identity.knighted"
    assert betrothed.last_error == "UnknownEvent: identity.betrothed"
    assert knighted.due_at == betrothed.due_at == ledger.now + timedelta(minutes=1)


def test_an_unknown_event_alone_is_postponed_without_an_attempt(ledger: InMemoryLedger) -> None:
    owe_something_unknown(ledger, 1, "identity.knighted")

    deliver_to(SyncKratosIdentity, ledger)

    (delivery,) = ledger.deliveries.values()
    assert (delivery.attempts, delivery.is_dead) == (0, False)
    assert delivery.last_error == "UnknownEvent: identity.knighted"
    assert ledger.attempts == []


def test_an_unknown_event_beside_a_failing_one_is_still_postponed(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    owe_something_unknown(ledger, 2, "identity.knighted")
    ledger.commit_errors.extend([RuntimeError("of the batch"), RuntimeError("of Ada alone")])

    deliver_to(SyncKratosIdentity, ledger)

    assert [(each.event_id, each.outcome) for each in ledger.attempts] == [(cause(1), "failed")]
    postponed = ledger.deliveries[SyncKratosIdentity.name, cause(2)]
    assert (postponed.attempts, postponed.last_error) == (0, "UnknownEvent: identity.knighted")


def test_a_payload_that_cannot_be_read_fails_alone(ledger: InMemoryLedger) -> None:
    for number, payload in enumerate(["{", "[]", '{"identity": 7}', "null"], start=1):
        event = RecordedEvent(
            cause(number), KratosIdentityUpdated.name, ADA, minutes(1), payload, "webhook"
        )
        ledger.events[event.id] = event
        ledger.deliveries[SyncKratosIdentity.name, event.id] = Delivery(ledger.now)
    ledger.publish(updated(9, GRACE), WEBHOOK)

    deliver_to(SyncKratosIdentity, ledger)

    assert sorted((each.event_id, each.outcome) for each in ledger.attempts) == [
        (cause(1), "failed"),
        (cause(2), "failed"),
        (cause(3), "failed"),
        (cause(4), "failed"),
        (cause(9), "succeeded"),
    ]


def test_deliveries_that_another_worker_holds_are_left_to_it(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1, ADA), WEBHOOK)
    ledger.publish(updated(2, GRACE), WEBHOOK)
    other = ledger.unit_of_work()

    with other.begin(timedelta(seconds=1)):
        other.inbox.open(SyncKratosIdentity.name, [cause(1)])
        deliver_to(SyncKratosIdentity, ledger)

    assert {each.id for each in ledger.identities} == {GRACE}
    assert ledger.due(SyncKratosIdentity.name) == (cause(1),)


def test_an_event_for_a_consumer_of_other_events_is_not_given_to_it(
    ledger: InMemoryLedger,
) -> None:
    hint = hinted(1)
    ledger.publish(hint, WEBHOOK)
    ledger.deliveries[DeleteFromKratos.name, hint.id] = Delivery(ledger.now)

    deliver_to(DeleteFromKratos, ledger, hint.id)

    waiting = ledger.deliveries[DeleteFromKratos.name, hint.id]
    assert waiting.last_error == "UnknownEvent: kratos_identity.hinted for DeleteFromKratos"
    assert waiting.due_at - ledger.now == timedelta(minutes=1)
    assert (ledger.attempts, waiting.attempts) == ([], 0)
