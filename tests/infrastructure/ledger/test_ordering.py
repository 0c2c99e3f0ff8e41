"""Deliveries in order, and subscriptions, as PostgreSQL has them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.dead_letters import DeadLetterFilter
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.ledger.claims import CLAIM_IN_ORDER, PostgresClaims
from kratos_sync.infrastructure.ledger.dead_letters import PostgresDeadLetterDecisions
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.ledger.subscriptions import (
    MayNotSubscribe,
    PostgresSubscriptions,
    Subscription,
)
from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.engine import connect
from tests.domain.people import ADA, GRACE, cause
from tests.suites.ledgers import PostgresLedger, subscribe_only
from tests.suites.occurrences import WEBHOOK, updated
from tests.waiting import until

LEASE = timedelta(seconds=30)
NOW = datetime.now(UTC)


class Follow(Consumer[KratosIdentityUpdated]):
    name, ordered, max_attempts = "Follow", True, 1
    fails = False

    def consume(self, event: KratosIdentityUpdated) -> None:
        if self.fails:
            raise ValueError("not today")


BOTH = Subscriptions(SUBSCRIPTIONS, {KratosIdentityUpdated: [Follow]})


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    """Ada's events 1, 2 and 4, and Grace's 3."""
    ledger = PostgresLedger(engine)
    PostgresSubscriptions(engine, BOTH).add_missing()
    for number, who in enumerate((ADA, ADA, GRACE, ADA), start=1):
        ledger.publish(updated(number, who), WEBHOOK)
    return ledger


@pytest.fixture
def claims(engine: Engine) -> PostgresClaims:
    return PostgresClaims(engine, LEASE)


def claimed(claims: PostgresClaims, *, skips_dead_letters: bool = False) -> set[int]:
    """The numbers of the events."""
    claim = claims.claim(Follow.name, 100, ordered=True, skips_dead_letters=skips_dead_letters)
    return {number for number in range(1, 5) if cause(number) in claim.event_ids}


def consume(ledger: PostgresLedger, *numbers: int) -> None:
    ids = [cause(number) for number in numbers]
    deliver(Batch(Follow, ids, ledger.unit_of_work(Follow), ledger))


def state(ledger: PostgresLedger, number: int) -> tuple[str | None, bool]:
    """Why it waits, and whether it is due."""
    (row,) = ledger.query(
        "SELECT error_type, due_at <= now() AS is_due FROM kratos_sync.deliveries"
        " WHERE consumer = 'Follow' AND event_id = :event_id",
        event_id=cause(number),
    )
    return row["error_type"], row["is_due"]


def test_only_the_first_of_each_identity_is_claimed(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    assert claimed(claims) == {1, 3}
    assert claimed(claims) == set()
    assert state(ledger, 2) == state(ledger, 4) == ("WaitsForEarlier", False)


def test_the_next_is_due_once_the_one_before_is_settled(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    claimed(claims)
    consume(ledger, 1)

    assert state(ledger, 2) == (None, True)
    assert state(ledger, 4) == ("WaitsForEarlier", False)
    assert claimed(claims) == {2}


def test_what_waits_behind_many_is_looked_at_less_often(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    for number in range(5, 45):
        ledger.publish(updated(number, GRACE), WEBHOOK)
    claims.claim(Follow.name, 100, ordered=True)

    rows = ledger.query(
        "SELECT round(extract(epoch FROM due_at - now()))::int AS seconds"
        " FROM kratos_sync.deliveries"
        " WHERE consumer = 'Follow' AND subject = :subject AND error_type = 'WaitsForEarlier'"
        " ORDER BY owed_at, event_id",
        subject=GRACE,
    )
    assert [row["seconds"] for row in rows] == [*range(10, 310, 10), *[300] * 10]


@contextmanager
def claiming(database_url: str, statement: str = CLAIM_IN_ORDER) -> Iterator[psycopg.Connection]:
    """A claim in a transaction that ends with the block."""
    with psycopg.connect(database_url) as connection:
        parameters = [Follow.name, 100, LEASE, None, None, False]
        psycopg.RawCursor(connection).execute(statement.encode(), parameters)
        yield connection


def waits_for_a_lock(ledger: PostgresLedger) -> bool:
    return bool(
        ledger.query(
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


def test_the_next_is_due_though_a_claim_sets_it_back_at_that_moment(
    ledger: PostgresLedger, claims: PostgresClaims, database_url: str
) -> None:
    claimed(claims)
    ledger.query("UPDATE kratos_sync.deliveries SET due_at = now() WHERE NOT leased")
    with ThreadPoolExecutor(1) as settling:
        with claiming(database_url):
            settled = settling.submit(consume, ledger, 1)
            until(lambda: settled.done() or waits_for_a_lock(ledger))
        settled.result()

    assert state(ledger, 2) == (None, True)


def test_the_next_is_due_though_a_claim_that_began_before_comes_to_it_afterwards(
    ledger: PostgresLedger, engine: Engine, database_url: str
) -> None:
    """A claim is held where it has its snapshot, and has locked nothing."""
    held = CLAIM_IN_ORDER.replace(
        "WHERE consumer = $1",
        "WHERE (SELECT pg_advisory_xact_lock(1)::text) = '' AND consumer = $1",
        1,
    )

    def claim() -> None:
        with claiming(database_url, held):
            pass

    with ThreadPoolExecutor(1) as claiming_meanwhile:
        with engine.begin() as holding:
            holding.exec_driver_sql("SELECT pg_advisory_xact_lock(1)")
            slow_claim = claiming_meanwhile.submit(claim)
            until(lambda: waits_for_a_lock(ledger))
            consume(ledger, 1)
        slow_claim.result()

    assert state(ledger, 2) == (None, True)


def test_what_is_recorded_together_comes_in_the_order_given_whatever_its_ids(
    engine: Engine, ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    ledger.query("DELETE FROM kratos_sync.deliveries")
    ids = [cause(number) for number in (7, 5, 6)]
    with engine.begin() as connection:
        record_many(connection, [(updated(number, ADA), WEBHOOK) for number in (7, 5, 6)])

    came = []
    for _ in ids:
        came += claims.claim(Follow.name, 100, ordered=True).event_ids
        deliver(Batch(Follow, came[-1:], ledger.unit_of_work(Follow), ledger))

    assert came == ids


def test_a_wait_is_no_attempt_and_no_error(ledger: PostgresLedger, claims: PostgresClaims) -> None:
    claimed(claims)
    consume(ledger, 1)
    claimed(claims)
    consume(ledger, 2)
    claimed(claims)
    consume(ledger, 4, 3)

    assert [each.number for each in ledger.attempts if each.consumer == Follow.name] == [1] * 4
    assert [name for name, _ in ledger.deliveries if name == Follow.name] == []


def test_a_retried_dead_letter_keeps_its_place(
    engine: Engine, ledger: PostgresLedger, claims: PostgresClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Follow, "fails", True)
    claimed(claims)
    consume(ledger, 1)
    assert ledger.deliveries[Follow.name, cause(1)].is_dead
    ledger.query("UPDATE kratos_sync.deliveries SET due_at = now() WHERE NOT leased")
    assert claimed(claims) == set()

    wanted = DeadLetterFilter(cause(1), Follow.name, None, None, None, datetime.now(UTC))
    assert list(PostgresDeadLetterDecisions(engine).retry(wanted, "ada", 10)) == [1]
    ledger.query("UPDATE kratos_sync.deliveries SET due_at = now() WHERE NOT leased")

    assert claimed(claims) == {1}


def test_behind_a_dead_letter_that_is_skipped_the_next_is_claimed(
    ledger: PostgresLedger, claims: PostgresClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Follow, "fails", True)
    claimed(claims)
    consume(ledger, 1)
    ledger.query("UPDATE kratos_sync.deliveries SET due_at = now() WHERE NOT leased")

    assert claimed(claims, skips_dead_letters=True) == {2}


def test_other_consumers_deliveries_are_not_ordered(ledger: PostgresLedger) -> None:
    rows = ledger.query(
        "SELECT consumer, bool_and(ordered) AS all, bool_or(ordered) AS any"
        " FROM kratos_sync.deliveries GROUP BY consumer ORDER BY consumer"
    )
    assert [(row["consumer"], row["all"], row["any"]) for row in rows] == [
        ("Follow", True, True),
        ("SyncKratosIdentity", False, False),
    ]


def test_the_database_has_the_services_own_subscriptions_from_the_beginning(
    empty_database_url: str,
) -> None:
    engine = connect(SecretStr(empty_database_url), pool_size=2)
    migrate(engine)
    assert PostgresSubscriptions(engine, Subscriptions(SUBSCRIPTIONS)).add_missing() == []
    assert PostgresSubscriptions(engine, Subscriptions(SUBSCRIPTIONS)).unknown() == []
    engine.dispose()


def test_what_is_missing_is_added_once_and_nothing_is_removed(engine: Engine) -> None:
    subscribe_only(engine, Subscriptions(SUBSCRIPTIONS))
    added = Subscription("kratos_identity.updated", "Follow", True)

    assert PostgresSubscriptions(engine, BOTH).add_missing() == [added]
    assert PostgresSubscriptions(engine, BOTH).add_missing() == []
    assert PostgresSubscriptions(engine, Subscriptions(SUBSCRIPTIONS)).add_missing() == []
    assert PostgresSubscriptions(engine, Subscriptions(SUBSCRIPTIONS)).unknown() == [added]


def test_a_consumer_that_becomes_ordered_is_noted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Follow, "ordered", False)
    PostgresSubscriptions(engine, BOTH).add_missing()
    monkeypatch.setattr(Follow, "ordered", True)

    assert [each.ordered for each in PostgresSubscriptions(engine, BOTH).add_missing()] == [True]


def test_a_role_that_may_not_add_learns_which_right_is_missing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'no' USING ERRCODE = 'insufficient_privilege'; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON kratos_sync.subscriptions"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )

    with pytest.raises(MayNotSubscribe) as refused:
        PostgresSubscriptions(engine, BOTH).add_missing()

    assert str(refused.value) == (
        "Follow is not subscribed to kratos_identity.updated in the database yet:"
        " run `kratos-sync migrate` first, with the application"
    )
