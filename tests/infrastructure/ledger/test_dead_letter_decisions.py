"""Retrying and discarding: in steps, of what was meant, and never twice."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.dead_letters import DeadLetterFilter
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.dead_letters import PostgresDeadLetterDecisions
from tests.domain.people import ADA, cause
from tests.infrastructure.ledger.rows import A_MINUTE, add_delivery
from tests.infrastructure.ledger.test_dead_letters import fail
from tests.infrastructure.statements import statements
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, updated

SYNC = SyncKratosIdentity.name
Decide = Callable[..., list[int]]
EVERYTHING = DeadLetterFilter()
STEP = 100
MANY = """
    WITH event AS (
        INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)
        SELECT gen_random_uuid(), 'e', gen_random_uuid(), now(), '{}', 'test'
        FROM generate_series(1, :many) RETURNING id, subject
    )
    INSERT INTO kratos_sync.deliveries
           (event_id, consumer, subject, attempts, last_error, failed_at, error_type)
    SELECT id, 'Greet', subject, 12, 'KeyError', now(), 'KeyError' FROM event
"""


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


def retry(engine: Engine, wanted: DeadLetterFilter = EVERYTHING, step: int = STEP) -> list[int]:
    return list(PostgresDeadLetterDecisions(engine).retry(wanted, "ada", step))


def discard(engine: Engine, wanted: DeadLetterFilter = EVERYTHING, step: int = STEP) -> list[int]:
    return list(PostgresDeadLetterDecisions(engine).discard(wanted, "ada", "too late", step))


def dead(ledger: PostgresLedger) -> set[UUID]:
    rows = ledger.query("SELECT event_id FROM kratos_sync.deliveries WHERE failed_at IS NOT NULL")
    return {row["event_id"] for row in rows}


def test_what_is_retried_is_due_from_its_first_attempt_on(
    engine: Engine, ledger: PostgresLedger
) -> None:
    fail(engine, error="KeyError: 1")

    assert retry(engine) == [1]

    (row,) = ledger.query(
        "SELECT attempts, leased, failed_at, last_error, due_at <= now() AS due,"
        " owed_at > now() - interval '10 s' AS is_recorded_now FROM kratos_sync.deliveries"
    )
    assert row == {
        "attempts": 0,
        "leased": False,
        "failed_at": None,
        "last_error": "KeyError: 1",
        "due": True,
        "is_recorded_now": True,
    }
    assert PostgresClaims(engine, A_MINUTE).survey(["Greet"])["Greet"].is_due


def test_what_is_retried_is_delivered_again(engine: Engine, ledger: PostgresLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    ledger.query("UPDATE kratos_sync.deliveries SET attempts = 12, failed_at = now()")
    batch = Batch(SyncKratosIdentity, [cause(1)], ledger.unit_of_work(), ledger)
    deliver(batch)
    assert dead(ledger) == {cause(1)}

    retry(engine)
    deliver(Batch(SyncKratosIdentity, [cause(1)], ledger.unit_of_work(), ledger))

    assert [row["id"] for row in ledger.query("SELECT id FROM kratos_sync.kratos_identities")] == [
        ADA
    ]
    assert [(each.number, each.outcome) for each in ledger.attempts] == [
        (12, "retried"),
        (1, "succeeded"),
    ]


def test_a_retry_is_logged_with_who_wanted_it(engine: Engine, ledger: PostgresLedger) -> None:
    event_id = fail(engine)
    retry(engine)
    (attempt,) = ledger.attempts
    assert attempt.event_id == event_id
    assert (attempt.consumer, attempt.number, attempt.outcome, attempt.error) == (
        "Greet",
        12,
        "retried",
        "Retried by ada",
    )


def test_a_discarded_dead_letter_is_removed_and_logged_with_who_and_why(
    engine: Engine, ledger: PostgresLedger
) -> None:
    event_id = fail(engine)

    assert discard(engine) == [1]

    assert ledger.deliveries == {}
    (attempt,) = ledger.attempts
    assert attempt.event_id == event_id
    assert (attempt.consumer, attempt.number, attempt.outcome, attempt.error) == (
        "Greet",
        12,
        "discarded",
        "Discarded by ada: too late",
    )


@pytest.mark.parametrize("decide", [retry, discard])
def test_only_what_is_meant_is_touched(
    engine: Engine, ledger: PostgresLedger, decide: Decide
) -> None:
    meant = fail(engine, kind="a.Rude")
    others = {fail(engine), fail(engine, "Count", kind="a.Rude")}
    waiting = add_delivery(engine, "Greet", attempts=1, due_in=A_MINUTE, error_type="a.Rude")

    assert decide(engine, DeadLetterFilter(consumer="Greet", exception="Rude")) == [1]

    assert dead(ledger) == others
    assert [attempt.event_id for attempt in ledger.attempts] == [meant]
    assert ledger.deliveries["Greet", waiting].attempts == 1


@pytest.mark.parametrize("decide", [retry, discard])
def test_a_delivery_that_dies_after_the_command_began_stays(
    engine: Engine, ledger: PostgresLedger, decide: Decide
) -> None:
    fail(engine)
    began = ledger.now
    later = fail(engine, ago=timedelta())

    assert decide(engine, DeadLetterFilter(until=began)) == [1]

    assert dead(ledger) == {later}


@pytest.mark.parametrize("decide", [retry, discard])
def test_what_somebody_has_locked_is_skipped(
    engine: Engine, ledger: PostgresLedger, decide: Decide
) -> None:
    fail(engine)
    locked = fail(engine)
    fail(engine)
    lock = text("SELECT 1 FROM kratos_sync.deliveries WHERE event_id = :id FOR UPDATE")
    with engine.begin() as connection:
        connection.execute(lock, {"id": locked})
        assert sum(decide(engine)) == 2

    assert dead(ledger) == {locked}
    assert len(ledger.attempts) == 2


@pytest.mark.parametrize("decide", [retry, discard])
def test_many_are_decided_on_in_steps_each_a_statement(
    engine: Engine, ledger: PostgresLedger, decide: Decide
) -> None:
    """Also when all failed in one moment."""
    ledger.query(MANY, many=2 * STEP + 10)

    with statements() as seen:
        assert decide(engine) == [STEP, STEP, 10]

    assert sum("_dead_letters(" in statement for statement in seen) == 4
    assert dead(ledger) == set()
    assert len({attempt.event_id for attempt in ledger.attempts}) == 2 * STEP + 10


@pytest.mark.parametrize("decide", ["retry", "discard"])
def test_what_is_done_when_it_ends_early_stays_done(
    engine: Engine, ledger: PostgresLedger, decide: str
) -> None:
    ledger.query(MANY, many=3 * STEP)
    decisions = PostgresDeadLetterDecisions(engine)
    steps = (
        decisions.retry(EVERYTHING, "ada", STEP)
        if decide == "retry"
        else decisions.discard(EVERYTHING, "ada", "too late", STEP)
    )

    assert next(steps) == STEP
    del steps

    assert len(dead(ledger)) == 2 * STEP
    assert len(ledger.attempts) == STEP


def test_who_and_why_may_be_said_in_any_bytes(engine: Engine, ledger: PostgresLedger) -> None:
    fail(engine)
    list(PostgresDeadLetterDecisions(engine).discard(EVERYTHING, "ada", "caf\udce9", STEP))
    (attempt,) = ledger.attempts
    assert attempt.error == "Discarded by ada: caf\\udce9"
