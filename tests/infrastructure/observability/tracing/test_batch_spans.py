"""A span for each try of a batch: whose child it is, what it says, and what facts carry on."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from kratos_sync.application.consumer import Consumer, RetryLater
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, pipeline
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.observability.tracing.batch_spans import LONGEST_TRACE
from kratos_sync.infrastructure.observability.tracing.contexts import MOST_LINKS
from kratos_sync.infrastructure.observability.tracing.sampling import CappedSampler
from kratos_sync.testing.ledger import InMemoryLedger
from tests.domain.people import ADA, GRACE, cause
from tests.infrastructure.observability.tracing.traced import (
    ANOTHER,
    CALLER,
    UNSAMPLED,
    Traced,
    linked_to,
    parent_of,
    traceparent_of,
)
from tests.suites.occurrences import WEBHOOK, subscribed, updated


class Greet(Consumer[KratosIdentityUpdated]):
    """Fails for Grace, and quotes her address in its error."""

    name = "Greet"
    max_attempts = 2

    def consume(self, event: KratosIdentityUpdated) -> None:
        if event.identity.id == GRACE:
            raise ValueError("cannot greet grace@example.org")


class Postpone(Greet):
    """Comes back later."""

    name = "Postpone"

    def consume(self, event: KratosIdentityUpdated) -> None:
        raise RetryLater(timedelta(minutes=1))


@pytest.fixture
def ledger() -> Iterator[InMemoryLedger]:
    ledger = InMemoryLedger()
    ledger.now = datetime.now(UTC)
    with subscribed(ledger, KratosIdentityUpdated, Greet, Postpone, SyncKratosIdentity):
        yield ledger


def webhook(traceparent: str | None) -> Provenance:
    return Provenance("webhook", traceparent=traceparent)


def deliver(
    traced: Traced,
    ledger: InMemoryLedger,
    consumer: type[Consumer[KratosIdentityUpdated]],
    *event_ids: UUID,
) -> None:
    ids = event_ids or ledger.due(consumer.name)
    run = pipeline(*traced.tracing.observers)
    run(Batch(consumer, ids, ledger.unit_of_work(), ledger))


def test_the_first_attempt_of_one_event_continues_the_trace_of_its_webhook(
    ledger: InMemoryLedger,
) -> None:
    traced = Traced()
    ledger.publish(updated(1), webhook(CALLER))

    deliver(traced, ledger, Greet)

    span = traced.only
    assert (span.name, span.kind, span.status.status_code) == (
        "process Greet",
        SpanKind.CONSUMER,
        StatusCode.UNSET,
    )
    assert parent_of(span) == CALLER
    assert linked_to(span) == []
    assert dict(span.attributes or {}) == {
        "messaging.system": "kratos_sync",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "Greet",
        "messaging.message.id": str(cause(1)),
        "kratos_sync.event.name": "kratos_identity.updated",
        "kratos_sync.attempt": 1,
        "kratos_sync.deliveries.succeeded": 1,
    }


def test_a_retry_begins_a_trace_that_links_to_the_webhook(ledger: InMemoryLedger) -> None:
    traced = Traced()
    ledger.publish(updated(1, GRACE), webhook(CALLER))
    deliver(traced, ledger, Greet)
    ledger.now += timedelta(minutes=1)

    deliver(traced, ledger, Greet)

    first, second = traced.spans
    assert parent_of(first) == CALLER
    assert (parent_of(second), linked_to(second)) == (None, [CALLER])
    assert second.attributes is not None
    assert second.attributes["kratos_sync.attempt"] == 2


def test_an_event_from_long_ago_begins_a_trace_that_links_to_the_webhook(
    ledger: InMemoryLedger,
) -> None:
    traced = Traced()
    ledger.now -= LONGEST_TRACE
    ledger.publish(updated(1), webhook(CALLER))

    deliver(traced, ledger, Greet)

    assert (parent_of(traced.only), linked_to(traced.only)) == (None, [CALLER])


def test_a_batch_links_to_each_sampled_trace_once(ledger: InMemoryLedger) -> None:
    traced = Traced()
    contexts = [CALLER, ANOTHER, UNSAMPLED, CALLER, None]
    for number, context in enumerate(contexts, 1):
        ledger.publish(updated(number), webhook(context))

    deliver(traced, ledger, Greet)

    assert parent_of(traced.only) is None
    assert linked_to(traced.only) == [CALLER, ANOTHER]
    assert traced.only.attributes is not None
    assert traced.only.attributes["messaging.batch.message_count"] == 5
    assert "messaging.message.id" not in traced.only.attributes


def test_a_batch_links_to_no_more_than_the_sdk_keeps(ledger: InMemoryLedger) -> None:
    traced = Traced()
    for number in range(1, MOST_LINKS + 10):
        ledger.publish(updated(number), webhook(f"00-{number:032x}-{number:016x}-01"))

    deliver(traced, ledger, Greet)

    assert len(traced.only.links) == MOST_LINKS
    assert traced.only.dropped_links == 0


def test_a_fact_carries_the_span_of_the_consumer_that_raised_it(ledger: InMemoryLedger) -> None:
    traced = Traced()
    ledger.publish(updated(1), webhook(CALLER))

    deliver(traced, ledger, SyncKratosIdentity)

    fact = next(event for event in ledger.events.values() if event.name == "identity.registered")
    assert fact.traceparent == traceparent_of(traced.only)


def test_what_a_caller_does_not_sample_stays_unsampled_in_a_batch_that_is(
    ledger: InMemoryLedger,
) -> None:
    traced = Traced()
    ledger.publish(updated(1, ADA), webhook(CALLER))
    ledger.publish(updated(2, GRACE), webhook(UNSAMPLED))

    deliver(traced, ledger, SyncKratosIdentity)

    facts = {e.subject: e.traceparent for e in ledger.events.values() if e.source != "webhook"}
    assert facts == {ADA: traceparent_of(traced.only), GRACE: UNSAMPLED}


def test_a_fact_keeps_the_trace_id_of_a_webhook_that_is_not_sampled(ledger: InMemoryLedger) -> None:
    traced = Traced(CappedSampler(0))
    ledger.publish(updated(1), webhook(UNSAMPLED))

    deliver(traced, ledger, SyncKratosIdentity)

    assert {event.traceparent for event in ledger.events.values()} == {UNSAMPLED}
    assert list(traced.spans) == []


def test_a_batch_that_is_split_has_a_span_for_each_part(ledger: InMemoryLedger) -> None:
    traced = Traced()
    ledger.has_savepoints = False
    ledger.publish(updated(1, ADA), webhook(CALLER))
    ledger.publish(updated(2, GRACE), webhook(ANOTHER))

    deliver(traced, ledger, Greet)

    whole, adas, graces = traced.spans
    assert linked_to(whole) == [CALLER, ANOTHER]
    assert [parent_of(adas), parent_of(graces)] == [CALLER, ANOTHER]
    assert [span.status.status_code for span in traced.spans] == [
        StatusCode.ERROR,
        StatusCode.UNSET,
        StatusCode.ERROR,
    ]
    assert whole.attributes is not None
    assert whole.attributes["kratos_sync.deliveries.unprocessed"] == 2


def test_a_failure_is_named_by_its_type_alone(ledger: InMemoryLedger) -> None:
    traced = Traced()
    ledger.publish(updated(1, GRACE), webhook(CALLER))

    deliver(traced, ledger, Greet)

    span = traced.only
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ValueError"
    assert span.attributes["kratos_sync.deliveries.failed"] == 1
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert list(span.events) == []
    assert "example.org" not in span.to_json()


def test_the_last_failure_is_a_dead_letter(ledger: InMemoryLedger) -> None:
    traced = Traced()
    ledger.publish(updated(1, GRACE), webhook(CALLER))
    deliver(traced, ledger, Greet)
    ledger.now += timedelta(minutes=1)

    deliver(traced, ledger, Greet)

    assert traced.spans[-1].attributes is not None
    assert traced.spans[-1].attributes["kratos_sync.deliveries.dead"] == 1


def test_a_postponed_delivery_is_no_error(ledger: InMemoryLedger) -> None:
    traced = Traced()
    ledger.publish(updated(1), webhook(CALLER))

    deliver(traced, ledger, Postpone)

    span = traced.only
    assert span.attributes is not None
    assert span.attributes["kratos_sync.deliveries.postponed"] == 1
    assert "error.type" not in span.attributes
    assert span.status.status_code is StatusCode.UNSET


def test_a_transaction_that_lost_a_race_is_the_same_try(ledger: InMemoryLedger) -> None:
    traced = Traced()
    ledger.publish(updated(1), webhook(CALLER))
    ledger.commit_errors.append(ConcurrencyConflict("40001"))

    deliver(traced, ledger, Greet)

    assert traced.only.attributes is not None
    assert traced.only.attributes["kratos_sync.deliveries.succeeded"] == 1


def test_an_outage_ends_the_span_with_its_type(ledger: InMemoryLedger) -> None:
    traced = Traced()
    ledger.publish(updated(1), webhook(CALLER))
    ledger.commit_errors.append(LedgerUnavailable("PostgreSQL is away"))

    with pytest.raises(LedgerUnavailable):
        deliver(traced, ledger, Greet)

    assert traced.only.attributes is not None
    assert str(traced.only.attributes["error.type"]).endswith("LedgerUnavailable")
    assert not get_current_span().get_span_context().is_valid


def test_what_was_settled_before_has_no_span(ledger: InMemoryLedger) -> None:
    traced = Traced()
    ledger.publish(updated(1), webhook(CALLER))
    deliver(traced, ledger, Greet)

    deliver(traced, ledger, Greet, cause(1))

    assert len(traced.spans) == 1


def test_the_span_is_the_current_one_while_the_consumer_runs(ledger: InMemoryLedger) -> None:
    seen = []

    class Look(Greet):
        name = "Look"

        def consume(self, event: KratosIdentityUpdated) -> None:
            seen.append(get_current_span().get_span_context().span_id)

    class LookAsync(Greet):
        name = "LookAsync"

        async def consume(self, event: KratosIdentityUpdated) -> None:  # type: ignore[override]  # as async consumers do
            seen.append(get_current_span().get_span_context().span_id)

    traced = Traced()
    with subscribed(ledger, KratosIdentityUpdated, Look, LookAsync):
        ledger.publish(updated(1), WEBHOOK)
    for consumer in (Look, LookAsync):
        deliver(traced, ledger, consumer)

    assert seen == [span.get_span_context().span_id for span in traced.spans]  # type: ignore[union-attr]
    assert not get_current_span().get_span_context().is_valid
