"""What a worker was consuming when it died is recorded by its successor."""

import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.infrastructure.application import subscriptions_with
from kratos_sync.infrastructure.ledger.inbox import PostgresFailures
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.process import record_lost_deliveries
from tests.domain.people import ADA, NOON, cause
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, updated
from tests.waiting import DEADLINE_SECONDS, until

SYNC = SyncKratosIdentity.name
LOCK = text("SELECT FROM kratos_sync.deliveries WHERE event_id = :id FOR UPDATE")


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    ledger = PostgresLedger(engine)
    for number in (1, 2):
        ledger.publish(updated(number), WEBHOOK)
    return ledger


@pytest.fixture
def in_flight() -> InFlightDeliveries:
    """The memory of a worker that died while two of its threads consumed a delivery each."""
    in_flight, both = InFlightDeliveries(), threading.Barrier(2, timeout=DEADLINE_SECONDS)

    def consume(number: int) -> None:
        delivery = PendingDelivery(cause(number), 1, "", ADA, NOON, "{}", None)
        in_flight.take(in_flight.slot(SYNC), delivery, time.time())
        both.wait()

    threads = [threading.Thread(target=consume, args=[number]) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return in_flight


def test_lost_deliveries_are_failed_attempts_and_no_longer_in_flight(
    ledger: PostgresLedger, in_flight: InFlightDeliveries
) -> None:
    record(ledger, in_flight)

    errors = [delivery.last_error for delivery in ledger.deliveries.values()]
    assert errors == ["WorkerDied: the worker's process was ended while it consumed this"] * 2
    assert list(in_flight) == []


def test_a_locked_delivery_does_not_hold_up_the_start_and_is_recorded_once_it_is_free(
    ledger: PostgresLedger, in_flight: InFlightDeliveries
) -> None:
    with ledger.engine.begin() as other:
        other.execute(LOCK, {"id": cause(1)})
        record(ledger, in_flight)
        attempts = {event_id: each.attempts for (_, event_id), each in ledger.deliveries.items()}
        assert attempts == {cause(1): 0, cause(2): 1}

    until(lambda: all(each.attempts == 1 for each in ledger.deliveries.values()))


def test_one_that_is_stopped_leaves_them_to_its_successor(
    ledger: PostgresLedger, in_flight: InFlightDeliveries
) -> None:
    stopped = threading.Event()
    stopped.set()

    record(ledger, in_flight, stopped)

    assert {lost.event_id for lost in in_flight} == {cause(1), cause(2)}
    assert ledger.attempts == []


def record(
    ledger: PostgresLedger, in_flight: InFlightDeliveries, stopped: threading.Event | None = None
) -> None:
    failures = PostgresFailures(ledger.engine, lock_timeout=timedelta(milliseconds=20))
    subscriptions = subscriptions_with(None)
    record_lost_deliveries(
        in_flight, subscriptions, failures, "was ended", stopped or threading.Event()
    )
