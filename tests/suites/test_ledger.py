"""What every ledger does: EventBus, Inbox, UnitOfWork and Failures, in memory or in PostgreSQL."""

import json
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.dead_letters import WORKER_DIED, FailedAttempt
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.unit_of_work import (
    ConcurrencyConflict,
    PendingDelivery,
    UnitOfWork,
)
from kratos_sync.domain.events import IdentityDeleted, IdentityRegistered, KratosIdentityUpdated
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.testing.ledger import Attempt
from tests.domain.people import ADA, GRACE, NOON, cause, minutes
from tests.suites.ledgers import Ledger, PostgresLedger
from tests.suites.occurrences import HEDY, MARY, WEBHOOK, gone, subscribed, updated

SYNC = SyncKratosIdentity.name
TIME_LIMIT = timedelta(seconds=20)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FAILED = FailedAttempt(
    cause(1), SYNC, 1, NOON, timedelta(milliseconds=5), "LookupError: no shoes", timedelta(hours=1)
)
REGISTERED = IdentityRegistered(cause(7), minutes(1), ADA, 1, {"name": "Ada"}, NOON)


def opened(ledger: Ledger, *event_ids: UUID) -> list[PendingDelivery]:
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        return unit.inbox.open(SYNC, event_ids)


def settle(unit: UnitOfWork, *event_ids: UUID) -> None:
    pending = unit.inbox.open(SYNC, event_ids)
    unit.inbox.settle(SYNC, pending, NOON, timedelta(milliseconds=5))


def settled(ledger: Ledger, *event_ids: UUID) -> None:
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        settle(unit, *event_ids)
        unit.commit()


def test_an_event_is_recorded_with_a_delivery_for_each_consumer(ledger: Ledger) -> None:
    recorded = ledger.publish(updated(1), Provenance("webhook", "key", TRACEPARENT))

    event = ledger.events[cause(1)]
    assert recorded
    assert list(ledger.events) == [cause(1)]
    assert json.loads(event.payload) == updated(1).to_json()
    assert (event.name, event.subject, event.occurred_at, event.source, event.dedupe_key) == (
        "kratos_identity.updated",
        ADA,
        minutes(1),
        "webhook",
        "key",
    )
    assert event.traceparent == TRACEPARENT
    assert list(ledger.deliveries) == [(SYNC, cause(1))]
    (delivery,) = ledger.deliveries.values()
    assert (delivery.attempts, delivery.last_error, delivery.is_dead) == (0, None, False)
    assert delivery.due_at <= ledger.now


def test_an_event_without_subscribers_is_recorded_without_deliveries(ledger: Ledger) -> None:
    assert ledger.publish(IdentityDeleted(cause(1), NOON, ADA, 2), Provenance("test"))

    assert (len(ledger.events), ledger.deliveries) == (1, {})


def test_of_two_events_with_one_dedupe_key_the_first_is_recorded(ledger: Ledger) -> None:
    assert ledger.publish(updated(1), Provenance("webhook", "ada at noon"))
    assert not ledger.publish(updated(2), Provenance("webhook", "ada at noon"))

    assert list(ledger.events) == [cause(1)]
    assert list(ledger.deliveries) == [(SYNC, cause(1))]


def test_a_dedupe_key_holds_when_its_delivery_is_long_settled(ledger: Ledger) -> None:
    ledger.publish(updated(1), Provenance("webhook", "ada at noon"))
    settled(ledger, cause(1))

    assert not ledger.publish(updated(2), Provenance("webhook", "ada at noon"))
    assert ledger.deliveries == {}


def test_events_without_a_dedupe_key_are_all_recorded(ledger: Ledger) -> None:
    assert ledger.publish(updated(1), WEBHOOK)
    assert ledger.publish(updated(2), WEBHOOK)

    assert list(ledger.events) == [cause(1), cause(2)]


def test_one_event_is_recorded_once(ledger: Ledger) -> None:
    assert ledger.publish(updated(1), WEBHOOK)
    settled(ledger, cause(1))

    assert not ledger.publish(updated(1), WEBHOOK)

    assert ledger.deliveries == {}


def test_the_inbox_gives_what_is_pending_in_the_order_of_ids(ledger: Ledger) -> None:
    for number, who in ((3, MARY), (1, ADA), (2, GRACE)):
        ledger.publish(updated(number, who), Provenance("webhook", traceparent=TRACEPARENT))

    pending = opened(ledger, cause(2), cause(3), cause(1))

    assert [delivery.event_id for delivery in pending] == [cause(1), cause(2), cause(3)]
    first = pending[0]._replace(payload="")
    assert json.loads(pending[0].payload) == updated(1).to_json()
    assert first.recorded_at is not None
    assert first == PendingDelivery(
        event_id=cause(1),
        attempt=1,
        name="kratos_identity.updated",
        subject=ADA,
        occurred_at=minutes(1),
        payload="",
        traceparent=TRACEPARENT,
        source="webhook",
        recorded_at=first.recorded_at,
    )


def test_the_inbox_gives_only_what_was_asked_for(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(updated(2), WEBHOOK)
    ledger.publish(gone(3), WEBHOOK)

    assert [each.event_id for each in opened(ledger, cause(2), cause(3), cause(9))] == [cause(2)]
    assert opened(ledger) == []


def test_an_event_named_twice_is_given_once(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)

    assert len(opened(ledger, cause(1), cause(1))) == 1


def test_what_another_unit_of_work_holds_is_left_to_it(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(updated(2), WEBHOOK)
    other = ledger.unit_of_work()

    with other.begin(TIME_LIMIT):
        other.inbox.open(SYNC, [cause(1)])
        meanwhile = opened(ledger, cause(1), cause(2))
    afterwards = opened(ledger, cause(1), cause(2))

    assert [each.event_id for each in meanwhile] == [cause(2)]
    assert [each.event_id for each in afterwards] == [cause(1), cause(2)]


def test_a_settled_delivery_is_gone_and_its_attempt_logged(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(updated(2), WEBHOOK)

    settled(ledger, cause(1), cause(2))

    assert ledger.deliveries == {}
    assert opened(ledger, cause(1), cause(2)) == []
    assert ledger.attempts == [
        Attempt(cause(1), SYNC, 1, "succeeded"),
        Attempt(cause(2), SYNC, 1, "succeeded"),
    ]


def test_settling_is_undone_without_a_commit(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    unit = ledger.unit_of_work()

    with unit.begin(TIME_LIMIT):
        settle(unit, cause(1))

    assert len(opened(ledger, cause(1))) == 1
    assert ledger.attempts == []


def test_a_failed_attempt_is_logged_and_the_delivery_due_after_its_backoff(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)

    ledger.record(FAILED)

    (delivery,) = ledger.deliveries.values()
    assert (delivery.attempts, delivery.is_dead) == (1, False)
    assert delivery.last_error == "LookupError: no shoes"
    assert timedelta(minutes=59) < delivery.due_at - ledger.now <= timedelta(hours=1)
    assert ledger.attempts == [Attempt(cause(1), SYNC, 1, "failed", "LookupError: no shoes")]


def test_a_message_that_comes_before_the_backoff_ended_finds_nothing(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)

    ledger.record(FAILED)

    assert opened(ledger, cause(1)) == []


def test_attempts_are_numbered_on(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.record(replace(FAILED, retry_after=timedelta()))

    (delivery,) = opened(ledger, cause(1))
    settled(ledger, cause(1))

    assert delivery.attempt == 2
    assert [(each.number, each.outcome) for each in ledger.attempts] == [
        (1, "failed"),
        (2, "succeeded"),
    ]


def test_the_last_failure_leaves_a_dead_letter_that_stays(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)

    ledger.record(replace(FAILED, retry_after=None))

    (delivery,) = ledger.deliveries.values()
    assert (delivery.attempts, delivery.is_dead) == (1, True)
    assert delivery.last_error == "LookupError: no shoes"
    assert opened(ledger, cause(1)) == []
    assert [each.outcome for each in ledger.attempts] == ["gave_up"]


def test_one_failure_counts_once_whoever_reports_it(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)

    ledger.record(FAILED)
    ledger.record(FAILED)

    assert [delivery.attempts for delivery in ledger.deliveries.values()] == [1]
    assert len(ledger.attempts) == 1


def test_a_failure_of_what_was_settled_meanwhile_is_nothing(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    settled(ledger, cause(1))

    ledger.record(FAILED)

    assert ledger.deliveries == {}
    assert [each.outcome for each in ledger.attempts] == ["succeeded"]


@pytest.mark.parametrize(
    "error", ["a NUL \x00 in it", "half a pair \ud83d of it", "😀 Ada \u2028", ""]
)
def test_whatever_an_error_says_it_is_written_down(ledger: Ledger, error: str) -> None:
    ledger.publish(updated(1), WEBHOOK)

    ledger.record(replace(FAILED, error=error))

    (delivery,) = ledger.deliveries.values()
    assert delivery.attempts == 1
    assert delivery.last_error is not None
    assert delivery.last_error[:5] == error[:5]


def test_a_postponed_delivery_comes_later_and_counts_no_attempt(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        unit.inbox.postpone(SYNC, [cause(1)], "UnknownEvent: identity.knighted")
        unit.commit()

    (delivery,) = ledger.deliveries.values()
    assert (delivery.attempts, delivery.is_dead) == (0, False)
    assert delivery.last_error == "UnknownEvent: identity.knighted"
    assert timedelta(seconds=50) < delivery.due_at - ledger.now <= timedelta(minutes=1)
    assert ledger.attempts == []


def test_postponing_is_undone_without_a_commit(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        unit.inbox.postpone(SYNC, [cause(1)], "UnknownEvent: identity.knighted")

    assert [delivery.last_error for delivery in ledger.deliveries.values()] == [None]


def lease(ledger: Ledger) -> None:
    """Lease whatever is pending for an hour; in memory there are no leases."""
    if isinstance(ledger, PostgresLedger):
        ledger.query(
            "UPDATE kratos_sync.deliveries SET leased = true, due_at = now() + interval '1 hour'"
        )


def test_a_released_delivery_is_due_at_once_and_counts_no_attempt(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(updated(2), WEBHOOK)
    lease(ledger)
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        settle(unit, cause(1))
        unit.inbox.open(SYNC, [cause(2)])
        unit.inbox.release(SYNC, [cause(2)])
        unit.commit()

    ((key, delivery),) = ledger.deliveries.items()
    assert key == (SYNC, cause(2))
    assert delivery.due_at <= ledger.now
    assert (delivery.attempts, delivery.last_error, delivery.is_dead) == (0, None, False)
    assert [each.event_id for each in ledger.attempts] == [cause(1)]
    assert [each.attempt for each in opened(ledger, cause(2))] == [1]


def test_failures_of_a_batch_are_written_down_with_its_commit(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        ledger.publish(updated(number), WEBHOOK)
    lease(ledger)
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        unit.inbox.open(SYNC, [cause(1), cause(2), cause(3)])
        unit.inbox.fail(
            [
                FAILED,
                replace(FAILED, event_id=cause(2), retry_after=None),
                replace(FAILED, event_id=cause(3), is_postponed=True),
            ]
        )
        before = list(ledger.attempts)
        unit.commit()

    assert before == []
    assert [(each.event_id, each.number, each.outcome) for each in ledger.attempts] == [
        (cause(1), 1, "failed"),
        (cause(2), 1, "gave_up"),
        (cause(3), 1, "postponed"),
    ]
    assert [(each.attempts, each.is_dead) for each in ledger.deliveries.values()] == [
        (1, False),
        (1, True),
        (0, False),
    ]


def test_failures_of_a_batch_are_undone_without_a_commit(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        unit.inbox.open(SYNC, [cause(1)])
        unit.inbox.fail([FAILED])

    assert ledger.attempts == []
    assert [each.attempt for each in opened(ledger, cause(1))] == [1]


def test_a_postponed_attempt_is_logged_and_not_counted(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    later = replace(FAILED, is_postponed=True, error="RetryLater: asked for more time")

    ledger.record(later)

    (delivery,) = ledger.deliveries.values()
    assert (delivery.attempts, delivery.is_dead) == (0, False)
    assert delivery.last_error == "RetryLater: asked for more time"
    assert timedelta(minutes=59) < delivery.due_at - ledger.now <= timedelta(hours=1)
    assert [(each.number, each.outcome) for each in ledger.attempts] == [(1, "postponed")]
    assert opened(ledger, cause(1)) == []


def test_whoever_is_postponed_again_and_again_is_at_its_first_attempt(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    for _ in range(3):
        ledger.record(replace(FAILED, is_postponed=True, retry_after=timedelta()))

    settled(ledger, cause(1))

    assert [(each.number, each.outcome) for each in ledger.attempts] == [
        (1, "postponed"),
        (1, "postponed"),
        (1, "postponed"),
        (1, "succeeded"),
    ]


@pytest.mark.parametrize(
    ("error_type", "is_quarantined"),
    [
        ("TimeLimitExceeded", True),
        (WORKER_DIED, True),
        ("ValueError", False),
        (None, False),
    ],
)
def test_a_delivery_that_exceeded_its_time_or_ended_its_process_is_quarantined(
    ledger: Ledger, error_type: str | None, is_quarantined: bool
) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(updated(2), WEBHOOK)

    ledger.record(replace(FAILED, error_type=error_type, retry_after=timedelta()))

    found = {each.event_id: each.is_quarantined for each in opened(ledger, cause(1), cause(2))}
    assert found == {cause(1): is_quarantined, cause(2): False}


def test_another_failure_ends_the_quarantine(ledger: Ledger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    at_once = replace(FAILED, retry_after=timedelta())
    ledger.record(replace(at_once, error_type="TimeLimitExceeded"))
    ledger.record(replace(at_once, error_type="ValueError", number=2))

    assert [each.is_quarantined for each in opened(ledger, cause(1))] == [False]


def test_an_event_recorded_by_a_unit_of_work_shows_when_it_commits(ledger: Ledger) -> None:
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        unit.record([(REGISTERED, Provenance(SYNC, traceparent=TRACEPARENT))])
        before = dict(ledger.events)
        unit.commit()

    assert before == {}
    event = ledger.events[REGISTERED.id]
    assert (event.source, event.traceparent) == (SYNC, TRACEPARENT)
    assert list(ledger.deliveries) == [(CountRegistrations.name, REGISTERED.id)]


def test_an_event_recorded_by_a_unit_of_work_is_gone_without_a_commit(ledger: Ledger) -> None:
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        unit.record([(REGISTERED, Provenance(SYNC))])

    assert (ledger.events, ledger.deliveries) == ({}, {})


def test_recording_an_event_again_adds_no_delivery(ledger: Ledger) -> None:
    unit = ledger.unit_of_work()
    for _ in range(2):
        with unit.begin(TIME_LIMIT):
            unit.record([(REGISTERED, Provenance(SYNC))] * 2)
            unit.record([])
            unit.commit()

    assert len(ledger.events) == len(ledger.deliveries) == 1


def test_a_consumer_works_in_the_transaction(ledger: Ledger) -> None:
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        unit.consumer(SyncKratosIdentity).consume(updated(1))
        raised = unit.collect_events()
        again = unit.collect_events()
        unit.commit()
    with unit.begin(TIME_LIMIT):
        unit.consumer(SyncKratosIdentity).consume(updated(2))
        collected_before = unit.collect_events()

    assert [event.name for event in raised] == ["identity.registered"]
    assert again == collected_before == []


def test_what_a_consumer_did_is_undone_without_a_commit(ledger: Ledger) -> None:
    unit = ledger.unit_of_work()
    for _ in range(2):
        with unit.begin(TIME_LIMIT):
            unit.consumer(SyncKratosIdentity).consume(updated(1))
            assert [event.name for event in unit.collect_events()] == ["identity.registered"]


class Presume(Consumer[KratosIdentityUpdated]):
    """Adds without looking."""

    name = "Presume"

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: KratosIdentityUpdated) -> None:
        self._identities.add(KratosIdentity.seen(event.identity, at=NOON, cause=event.id))


def test_who_is_second_with_a_new_identity_meets_a_conflict(ledger: Ledger) -> None:
    with subscribed(ledger, KratosIdentityUpdated, Presume):
        first, second = ledger.unit_of_work(), ledger.unit_of_work()
    with first.begin(TIME_LIMIT), second.begin(TIME_LIMIT):
        for number, unit in enumerate((first, second), start=1):
            unit.consumer(Presume).consume(updated(number, HEDY))
        first.commit()
        with pytest.raises(ConcurrencyConflict):
            second.commit()


def test_who_lost_a_race_left_nothing(ledger: Ledger) -> None:
    ledger.publish(updated(2, HEDY), WEBHOOK)
    with subscribed(ledger, KratosIdentityUpdated, Presume):
        first, second = ledger.unit_of_work(), ledger.unit_of_work()
    with first.begin(TIME_LIMIT), second.begin(TIME_LIMIT):
        settle(second, cause(2))
        for number, unit in enumerate((first, second), start=1):
            unit.consumer(Presume).consume(updated(number, HEDY))
        second.record([(REGISTERED, Provenance(SYNC))])
        first.commit()
        with pytest.raises(ConcurrencyConflict):
            second.commit()

    assert list(ledger.events) == [cause(2)]
    assert list(ledger.deliveries) == [(SYNC, cause(2))]
    assert ledger.attempts == []
