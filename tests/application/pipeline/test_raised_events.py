"""What aggregates raise is recorded with its cause's effects, or not at all."""

import json
from datetime import timedelta

from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.application.consumers.delete_kratos_identity import DeleteKratosIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.json_values import Json
from kratos_sync.testing.ledger import InMemoryLedger
from tests.application.delivering import deliver_to
from tests.domain.people import ADA, GRACE, address, cause, minutes
from tests.suites.occurrences import WEBHOOK, gone, updated

ADAS_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
GRACES_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def facts(ledger: InMemoryLedger) -> list[str]:
    return [event.name for event in ledger.events.values() if event.name.startswith("identity.")]


def test_a_fact_is_recorded_by_the_commit_that_holds_its_cause(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)

    deliver_to(SyncKratosIdentity, ledger)

    assert facts(ledger) == ["identity.registered"]
    assert ledger.commits == 1


def test_a_fact_has_deliveries_for_its_own_consumers(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)

    deliver_to(SyncKratosIdentity, ledger)

    assert [consumer for consumer, _ in ledger.deliveries] == [CountRegistrations.name]


def test_a_fact_names_the_consumer_that_raised_it(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(gone(2, GRACE), WEBHOOK)

    deliver_to(SyncKratosIdentity, ledger)
    deliver_to(DeleteKratosIdentity, ledger)

    sources = {event.name: event.source for event in ledger.events.values()}
    assert sources["identity.registered"] == "SyncKratosIdentity"
    assert sources["identity.deleted"] == "DeleteKratosIdentity"


def test_no_fact_is_recorded_when_the_commit_fails(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.commit_errors.append(RuntimeError("the disk is full"))

    deliver_to(SyncKratosIdentity, ledger)

    assert facts(ledger) == []


def test_a_fact_is_recorded_once_when_its_cause_succeeds_at_last(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.commit_errors.append(RuntimeError("the disk is full"))
    deliver_to(SyncKratosIdentity, ledger)
    ledger.now += timedelta(hours=1)

    deliver_to(SyncKratosIdentity, ledger)

    assert facts(ledger) == ["identity.registered"]


def test_facts_carry_on_the_trace_of_the_webhook_that_caused_them(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1, ADA), Provenance("webhook", traceparent=ADAS_TRACE))
    ledger.publish(updated(2, GRACE), Provenance("webhook", traceparent=GRACES_TRACE))

    deliver_to(SyncKratosIdentity, ledger)

    traces = {
        event.subject: event.traceparent
        for event in ledger.events.values()
        if event.name == "identity.registered"
    }
    assert traces == {ADA: ADAS_TRACE, GRACE: GRACES_TRACE}


def test_two_webhooks_of_one_person_keep_their_traces_apart(ledger: InMemoryLedger) -> None:
    verified: Json = [address(verified_at=minutes(2))]
    ledger.publish(updated(1), Provenance("webhook", traceparent=ADAS_TRACE))
    ledger.publish(
        updated(2, at=minutes(2), verifiable_addresses=verified),
        Provenance("webhook", traceparent=GRACES_TRACE),
    )

    deliver_to(SyncKratosIdentity, ledger)

    traces = {event.name: event.traceparent for event in ledger.events.values()}
    assert traces["identity.registered"] == ADAS_TRACE
    assert traces["identity.address_verified"] == GRACES_TRACE


def test_a_fact_of_a_webhook_without_a_trace_has_none(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)

    deliver_to(SyncKratosIdentity, ledger)

    assert [event.traceparent for event in ledger.events.values()] == [None, None]


def test_a_batch_raises_the_facts_of_each_event_in_it(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(updated(2, minute=1, traits={"email": "ada@home.org"}), WEBHOOK)

    deliver_to(SyncKratosIdentity, ledger)

    assert facts(ledger) == ["identity.registered", "identity.traits_changed"]
    changed = next(e for e in ledger.events.values() if e.name == "identity.traits_changed")
    assert json.loads(changed.payload)["identity_id"] == str(ADA)
    assert [each.version for each in ledger.identities] == [2]
    assert {each.event_id for each in ledger.attempts} == {cause(1), cause(2)}
