"""What only the ledger in PostgreSQL can be asked."""

import json
from datetime import timedelta
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.infrastructure.ledger.inbox import PostgresUnitOfWork
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.infrastructure.postgres.transaction import Transaction
from tests.domain.people import ADA, GRACE, NOON, cause
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, person, updated
from tests.suites.publishing import bus_of, publish
from tests.waiting import at_once

SYNC = SyncKratosIdentity.name
TIME_LIMIT = timedelta(seconds=20)


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


def test_a_payload_is_kept_to_the_letter(ledger: PostgresLedger) -> None:
    event = updated(1, traits={"z": 1, "a": 10**40, "nul": "\x00", "snow": "☃", "f": 1e300})

    ledger.publish(event, WEBHOOK)

    payload = ledger.events[cause(1)].payload
    assert json.loads(payload) == event.to_json()
    assert payload.index('"z"') < payload.index('"a"')
    assert "☃" in payload


def test_of_webhooks_with_one_dedupe_key_that_come_at_once_one_is_recorded(
    ledger: PostgresLedger,
) -> None:
    recorded: list[bool] = []

    def publish(number: int) -> None:
        recorded.append(ledger.publish(updated(number), Provenance("webhook", "ada at noon")))

    at_once(*(lambda number=number: publish(number) for number in range(1, 5)))

    assert sorted(recorded) == [False, False, False, True]
    assert len(ledger.events) == len(ledger.deliveries) == 1


def test_a_publish_wakes_the_relay_after_its_commit(engine: Engine, ledger: PostgresLedger) -> None:
    seen: list[list[UUID]] = []
    bus = bus_of(engine, wake_relay=lambda: seen.append(list(ledger.events)))

    publish(bus, updated(1), Provenance("webhook", "ada"))
    publish(bus, updated(2), Provenance("webhook", "ada"))

    assert seen == [[cause(1)]]


def test_a_unit_of_work_wakes_the_relay_only_for_something_new(
    engine: Engine, ledger: PostgresLedger
) -> None:
    woken: list[int] = []
    factory = ledger.unit_of_work()._consumers
    unit = PostgresUnitOfWork(engine, factory, wake_relay=lambda: woken.append(len(ledger.events)))

    with unit.begin(TIME_LIMIT):
        unit.record([])
        unit.commit()
    with unit.begin(TIME_LIMIT):
        unit.record([(updated(1), WEBHOOK)])
    with unit.begin(TIME_LIMIT):
        unit.record([(updated(2), WEBHOOK)])
        unit.commit()

    assert woken == [1]


def test_a_publish_without_postgresql_is_an_unavailable_ledger() -> None:
    nowhere = connect(SecretStr("postgresql://ada@/nowhere?host=/nonexistent"), pool_size=1)

    with pytest.raises(LedgerUnavailable):
        publish(bus_of(nowhere), updated(1), WEBHOOK)


def test_a_unit_of_work_without_postgresql_is_an_unavailable_ledger() -> None:
    nowhere = connect(SecretStr("postgresql://ada@/nowhere?host=/nonexistent"), pool_size=1)

    with pytest.raises(LedgerUnavailable), Transaction(nowhere).begin(TIME_LIMIT):
        pass


def test_many_events_are_recorded_as_one_is(ledger: PostgresLedger) -> None:
    with ledger.engine.begin() as connection:
        assert record_many(connection, [(updated(1, ADA), WEBHOOK)]) == 1
        record_many(connection, [(updated(n, person(n)), WEBHOOK) for n in range(1, 101)])
        record_many(connection, [])

    assert len(ledger.events) == len(ledger.deliveries) == 100
    assert ledger.events[cause(1)].subject == ADA


def test_an_attempt_has_its_start_and_duration(ledger: PostgresLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    unit = ledger.unit_of_work()
    with unit.begin(TIME_LIMIT):
        deliveries = unit.inbox.open(SYNC, [cause(1)])
        unit.inbox.settle(SYNC, deliveries, NOON, timedelta(milliseconds=5, microseconds=7))
        unit.commit()

    (attempt,) = ledger.query("SELECT * FROM kratos_sync.attempts")
    assert attempt["started_at"] == NOON
    assert attempt["duration"] == timedelta(milliseconds=5, microseconds=7)
    assert attempt["error"] is None


def test_the_inbox_gives_the_transaction_the_subjects_of_its_events(
    ledger: PostgresLedger, engine: Engine
) -> None:
    ledger.publish(updated(1, ADA), WEBHOOK)
    ledger.publish(updated(2, GRACE), WEBHOOK)
    ledger.publish(updated(3, ADA), WEBHOOK)
    unit = PostgresUnitOfWork(engine, ledger.unit_of_work()._consumers, lambda: None)

    with unit.begin(TIME_LIMIT):
        unit.inbox.open(SYNC, [cause(1), cause(2), cause(3)])
        subjects = unit.subjects
    with unit.begin(TIME_LIMIT):
        subjects_of_the_next = unit.subjects

    assert sorted(subjects) == sorted([ADA, GRACE])
    assert subjects_of_the_next == ()
