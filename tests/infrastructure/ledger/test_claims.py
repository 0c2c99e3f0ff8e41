"""Leasing what is due."""

from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.consumers.delete_kratos_identity import DeleteKratosIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.ledger.backlog import Backlog
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.postgres.engine import connect
from tests.domain.people import ADA, GRACE, cause
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, gone, person, updated

SYNC, DELETE = SyncKratosIdentity.name, DeleteKratosIdentity.name
LEASE = timedelta(seconds=30)


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


@pytest.fixture
def claims(engine: Engine) -> PostgresClaims:
    return PostgresClaims(engine, LEASE)


def set_delivery(ledger: PostgresLedger, number: int, **columns: str) -> None:
    assignments = ", ".join(f"{column} = {value}" for column, value in columns.items())
    ledger.query(
        f"UPDATE kratos_sync.deliveries SET {assignments} WHERE event_id = :id", id=cause(number)
    )


def test_a_claim_leases_what_is_due(ledger: PostgresLedger, claims: PostgresClaims) -> None:
    ledger.publish(updated(1), WEBHOOK)

    first, second = claims.claim(SYNC, 10), claims.claim(SYNC, 10)

    assert (first.event_ids, first.expired) == ([cause(1)], 0)
    assert (second.event_ids, second.expired) == ([], 0)


def test_a_claim_takes_the_longest_due_first(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    for number in range(1, 5):
        ledger.publish(updated(number, person(number)), WEBHOOK)
    set_delivery(ledger, 3, due_at="now() - interval '1 hour'")
    set_delivery(ledger, 4, due_at="now() - interval '1 minute'")

    claimed = [claims.claim(SYNC, 1).event_ids for _ in range(3)]

    assert claimed == [[cause(3)], [cause(4)], [cause(1)]]


def test_a_claim_takes_one_consumers_deliveries(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(gone(2), WEBHOOK)

    assert claims.claim(DELETE, 10).event_ids == [cause(2)]
    assert claims.claim("Nobody", 10).event_ids == []


def test_a_claim_leaves_what_is_not_yet_due_and_what_is_dead(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    for number in range(1, 4):
        ledger.publish(updated(number), WEBHOOK)
    set_delivery(ledger, 1, due_at="now() + interval '1 second'")
    set_delivery(ledger, 2, failed_at="now()")

    assert claims.claim(SYNC, 10).event_ids == [cause(3)]


def test_events_of_one_identity_stand_side_by_side(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    for number in range(1, 9):
        ledger.publish(updated(number, ADA if number % 2 else GRACE), WEBHOOK)

    odd = [cause(number) for number in (1, 3, 5, 7)]
    even = [cause(number) for number in (2, 4, 6, 8)]
    assert claims.claim(SYNC, 10).event_ids in ([*odd, *even], [*even, *odd])


def test_a_lease_that_ran_out_is_claimed_again_and_counted(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(updated(2), WEBHOOK)
    claims.claim(SYNC, 1)
    set_delivery(ledger, 1, due_at="now()")

    again = claims.claim(SYNC, 10)

    assert (again.event_ids, again.expired) == ([cause(1), cause(2)], 1)


def test_a_released_delivery_is_due_at_once_and_counts_as_no_expired_lease(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.publish(updated(2), WEBHOOK)
    claims.claim(SYNC, 10)

    claims.release(SYNC, [cause(1), cause(7)])
    claims.release(SYNC, [])

    again = claims.claim(SYNC, 10)
    assert (again.event_ids, again.expired) == ([cause(1)], 0)


def test_releasing_a_delivery_that_has_failed_meanwhile_keeps_its_backoff(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    ledger.publish(updated(1), WEBHOOK)
    claims.claim(SYNC, 10)
    set_delivery(ledger, 1, leased="false", due_at="now() + interval '1 hour'", attempts="1")

    claims.release(SYNC, [cause(1)])

    (delivery,) = ledger.deliveries.values()
    assert delivery.due_at - ledger.now > timedelta(minutes=59)


def test_a_survey_counts_leases_and_says_when_the_next_delivery_is_due(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    for number in range(1, 4):
        ledger.publish(updated(number), WEBHOOK)
    claims.claim(SYNC, 2)

    due = claims.survey([SYNC, DELETE])
    claims.claim(SYNC, 1)
    leased = claims.survey([SYNC])[SYNC]

    assert (due[SYNC].leased, due[SYNC].is_due) == (2, True)
    assert due[DELETE] == Backlog(0, None)
    assert (leased.leased, leased.is_due) == (3, False)
    assert leased.due_in is not None
    assert timedelta() < leased.due_in <= LEASE


def test_a_survey_counts_no_lease_that_ran_out_and_no_dead_letter(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    for number in range(1, 4):
        ledger.publish(updated(number), WEBHOOK)
    claims.claim(SYNC, 3)
    set_delivery(ledger, 1, due_at="now() - interval '1 second'")
    set_delivery(ledger, 2, failed_at="now()")

    assert claims.survey([SYNC])[SYNC].leased == 1


@pytest.mark.parametrize(
    ("seconds", "is_due"), [(None, False), (-1.0, True), (0.0, True), (0.001, False)]
)
def test_a_backlog_is_due_when_its_next_delivery_is(seconds: float | None, is_due: bool) -> None:
    due_in = None if seconds is None else timedelta(seconds=seconds)

    assert Backlog(leased=0, due_in=due_in).is_due is is_due


def test_claims_without_postgresql_are_an_unavailable_ledger() -> None:
    nowhere = connect(SecretStr("postgresql://ada@/nowhere?host=/nonexistent"), pool_size=1)
    claims = PostgresClaims(nowhere, LEASE)

    for ask in (
        lambda: claims.survey([SYNC]),
        lambda: claims.claim(SYNC, 1),
        lambda: claims.release(SYNC, []),
    ):
        with pytest.raises(LedgerUnavailable):
            ask()
