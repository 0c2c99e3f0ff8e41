"""Failed attempts in PostgreSQL."""

from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.inbox import PostgresFailures
from kratos_sync.infrastructure.postgres.engine import connect
from tests.domain.people import NOON, cause
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, updated
from tests.waiting import at_once

SYNC = SyncKratosIdentity.name
FAILED = FailedAttempt(
    cause(1), SYNC, 1, NOON, timedelta(milliseconds=5), "LookupError: no shoes", timedelta(hours=1)
)


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    ledger = PostgresLedger(engine)
    ledger.publish(updated(1), WEBHOOK)
    return ledger


def test_a_failure_ends_the_lease(ledger: PostgresLedger) -> None:
    PostgresClaims(ledger.engine, timedelta(seconds=30)).claim(SYNC, 1)

    ledger.record(FAILED)

    (row,) = ledger.query("SELECT leased, failed_at FROM kratos_sync.deliveries")
    assert row == {"leased": False, "failed_at": None}


def test_a_dead_letter_has_the_time_of_its_failure(ledger: PostgresLedger) -> None:
    ledger.record(replace(FAILED, retry_after=None))

    (row,) = ledger.query("SELECT failed_at <= now() AS died FROM kratos_sync.deliveries")
    assert row == {"died": True}


def test_a_failed_attempt_has_its_start_and_duration(
    ledger: PostgresLedger,
) -> None:
    ledger.record(FAILED)

    (row,) = ledger.query("SELECT started_at, duration FROM kratos_sync.attempts")
    assert row == {"started_at": NOON, "duration": timedelta(milliseconds=5)}


def test_what_an_error_quotes_may_be_anything(ledger: PostgresLedger) -> None:
    ledger.record(replace(FAILED, error="NUL \x00, half a pair \ud83d, snow ☃"))

    (delivery,) = ledger.deliveries.values()
    assert delivery.last_error == "NUL \ufffd, half a pair \\ud83d, snow ☃"


def test_a_failure_that_two_workers_report_at_once_counts_once(ledger: PostgresLedger) -> None:
    at_once(*[lambda: ledger.record(FAILED)] * 4)

    assert [delivery.attempts for delivery in ledger.deliveries.values()] == [1]
    assert len(ledger.attempts) == 1


def test_a_retry_at_once_is_due_at_once(ledger: PostgresLedger) -> None:
    ledger.record(replace(FAILED, retry_after=timedelta()))

    (delivery,) = ledger.deliveries.values()
    assert (delivery.is_dead, delivery.due_at <= ledger.now) == (False, True)


def test_without_postgresql_recording_a_failure_is_an_unavailable_ledger() -> None:
    nowhere = connect(SecretStr("postgresql://ada@/nowhere?host=/nonexistent"), pool_size=1)

    with pytest.raises(LedgerUnavailable):
        PostgresFailures(nowhere).record(FAILED)
