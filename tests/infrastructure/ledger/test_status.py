from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.ports.dead_letters import RETRY_LATER, UNKNOWN_EVENT
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.status import (
    RECENT_ATTEMPTS,
    ConsumerStatus,
    Count,
    StatusReport,
)
from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from kratos_sync.infrastructure.ledger.status import COUNTED, PostgresStatus, holders
from kratos_sync.infrastructure.migrations import SchemaTooOld, migrate
from kratos_sync.infrastructure.postgres.engine import connect
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    AT_ONCE,
    add_delivery,
    add_event,
    add_identity,
    log_attempt,
)

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _only_the_consumers_of_a_test(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE kratos_sync.subscriptions"))


def report(engine: Engine, *consumers: str) -> StatusReport:
    return PostgresStatus(engine).report(consumers)


def only(engine: Engine) -> ConsumerStatus:
    (consumer,) = report(engine, "Greet").consumers
    return consumer


def about(lag: timedelta | None, expected: timedelta) -> bool:
    return lag is not None and expected <= lag < expected + A_MINUTE


def test_a_consumer_without_deliveries_is_listed_with_zeros(engine: Engine) -> None:
    assert report(engine, "Greet", "Count").consumers == (
        ConsumerStatus("Greet", known=True),
        ConsumerStatus("Count", known=True),
    )


def test_a_pending_delivery_is_due_or_dispatched_or_waiting(engine: Engine) -> None:
    for _ in range(3):
        add_delivery(engine, "Greet")
    for _ in range(2):
        add_delivery(engine, "Greet", due_in=A_MINUTE, leased=True)
    add_delivery(engine, "Greet", due_in=A_MINUTE, attempts=1, last_error="KeyError")
    greet = only(engine)
    assert (greet.due, greet.dispatched, greet.waiting, greet.backlog) == (3, 2, 1, 6)


def test_a_delivery_whose_lease_ran_out_is_due(engine: Engine) -> None:
    add_delivery(engine, "Greet", due_in=-A_MINUTE, leased=True)
    assert (only(engine).due, only(engine).dispatched) == (1, 0)


def test_a_dead_letter_is_failed_and_neither_pending_nor_part_of_the_lag(engine: Engine) -> None:
    add_delivery(engine, "Greet", age=HOUR, attempts=12, last_error="KeyError", failed_ago=A_MINUTE)
    greet = only(engine)
    assert (greet.failed, greet.backlog, greet.lag) == (1, 0, None)


def test_the_lag_is_the_age_of_the_oldest_pending_event_whatever_its_state(engine: Engine) -> None:
    add_delivery(engine, "Greet", age=A_MINUTE)
    add_delivery(engine, "Greet", age=HOUR, due_in=A_MINUTE, leased=True)
    assert about(only(engine).lag, HOUR)
    add_delivery(engine, "Greet", age=2 * HOUR, due_in=A_MINUTE, attempts=3)
    assert about(only(engine).lag, 2 * HOUR)


def test_a_postponed_delivery_is_pending_and_no_lag_until_it_is_due(engine: Engine) -> None:
    add_delivery(engine, "Greet", age=HOUR, due_in=A_MINUTE, error_type=RETRY_LATER)
    greet = only(engine)
    assert (greet.backlog, greet.waiting, greet.postponed, greet.lag) == (1, 1, 1, None)
    add_delivery(engine, "Count", age=HOUR, error_type=RETRY_LATER)
    count = report(engine, "Count").consumers[0]
    assert (count.due, count.postponed) == (1, 0)
    assert about(count.lag, HOUR)


def test_the_lag_of_one_consumer_is_not_anothers(engine: Engine) -> None:
    add_delivery(engine, "Greet", age=A_MINUTE)
    add_delivery(engine, "Count", age=HOUR)
    greet, count = report(engine, "Greet", "Count").consumers
    assert about(greet.lag, A_MINUTE)
    assert about(count.lag, HOUR)


def test_an_old_event_that_is_pending_only_since_now_is_no_lag(engine: Engine) -> None:
    add_delivery(engine, "Greet", add_event(engine, age=HOUR))
    lag = only(engine).lag
    assert lag is not None
    assert lag < A_MINUTE


def test_consumers_that_this_release_does_not_have_come_last(engine: Engine) -> None:
    add_delivery(engine, "Tickle")
    add_delivery(engine, "Applaud", attempts=12, failed_ago=A_MINUTE)
    consumers = report(engine, "Greet").consumers
    assert [(c.name, c.known) for c in consumers] == [
        ("Greet", True),
        ("Applaud", False),
        ("Tickle", False),
    ]


def test_the_last_success_is_the_end_of_the_newest_attempt_that_succeeded(engine: Engine) -> None:
    log_attempt(engine, "Greet", age=2 * HOUR)
    log_attempt(engine, "Greet", age=HOUR, duration=A_MINUTE)
    log_attempt(engine, "Greet", outcome="failed", error="KeyError")
    log_attempt(engine, "Count")
    last, now = only(engine).last_success_at, datetime.now(UTC)
    assert last is not None
    assert about(now - last, HOUR - A_MINUTE)


def test_a_success_before_the_recent_attempts_is_not_looked_for(engine: Engine) -> None:
    log_attempt(engine, "Greet", age=HOUR)
    with engine.begin() as connection:
        connection.execute(
            text("SELECT setval('kratos_sync.attempts_id_seq', :id)"), {"id": RECENT_ATTEMPTS}
        )
    assert only(engine).last_success_at
    log_attempt(engine, "Count")
    assert only(engine).last_success_at is None


def test_events_that_no_release_here_knows_are_named_and_counted(engine: Engine) -> None:
    merged = "UnknownEvent: kratos_identity.merged"
    unknown = UNKNOWN_EVENT
    add_delivery(
        engine, "Greet", age=A_MINUTE, due_in=A_MINUTE, last_error=merged, error_type=unknown
    )
    add_delivery(engine, "Count", age=HOUR, last_error=merged, error_type=unknown)
    add_delivery(
        engine,
        "Greet",
        due_in=A_MINUTE,
        leased=True,
        last_error="UnknownEvent: identity.split",
        error_type=unknown,
    )
    add_delivery(engine, "Greet", due_in=A_MINUTE, last_error="KeyError: 'UnknownEvent: nothing'")
    split, merge = sorted(
        report(engine, "Greet").unknown_events, key=lambda event: event.deliveries
    )
    assert (split.name, split.deliveries) == ("identity.split", 1)
    assert (merge.name, merge.deliveries) == ("kratos_identity.merged", 2)
    assert about(merge.oldest, HOUR)


def test_few_rows_are_counted(engine: Engine) -> None:
    add_identity(engine)
    add_identity(engine, uuid4())
    add_identity(engine, uuid4(), deleted_at=datetime.now(UTC))
    add_event(engine)
    log_attempt(engine, "Greet")
    found = report(engine)
    assert (found.alive, found.deleted) == (Count(2), Count(1))
    assert (found.events, found.attempts) == (Count(1), Count(1))


@pytest.mark.parametrize("analyzed", [True, False])
def test_many_identities_are_estimated(engine: Engine, analyzed: bool) -> None:
    many = 2 * COUNTED
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text("""
                INSERT INTO kratos_sync.kratos_identities (id, deleted_at, synced_at, version)
                SELECT gen_random_uuid(), CASE WHEN i % 4 = 0 THEN now() END, now(), 1
                FROM generate_series(1, :many) i
            """),
            {"many": many},
        )
        if analyzed:
            connection.execute(text("ANALYZE kratos_sync.kratos_identities"))
    found = report(engine)
    assert found.alive.estimated
    assert found.deleted.estimated
    total = found.alive.number + found.deleted.number
    assert found.deleted.number == pytest.approx(total / 4, rel=0.01)
    if analyzed:
        assert total == pytest.approx(many, rel=0.01)


def test_many_events_and_attempts_are_estimated(engine: Engine) -> None:
    many = 2 * COUNTED
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in (
            """INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)
               SELECT gen_random_uuid(), 'e', gen_random_uuid(), now(), '{}', 'test'
               FROM generate_series(1, :many)""",
            """INSERT INTO kratos_sync.attempts
                      (event_id, consumer, number, outcome, started_at, duration)
               SELECT gen_random_uuid(), 'Greet', 1, 'succeeded', now(), '1 ms'
               FROM generate_series(1, :many)""",
        ):
            connection.execute(text(statement), {"many": many})
        connection.execute(text("ANALYZE kratos_sync.events, kratos_sync.attempts"))
    found = report(engine)
    for count in (found.events, found.attempts):
        assert count.estimated
        assert count.number == pytest.approx(many, rel=0.01)


def test_each_table_is_listed_with_its_size_the_largest_first(engine: Engine) -> None:
    tables = report(engine).storage.tables
    assert {"kratos_identities", "events", "deliveries", "attempts"} <= tables.keys()
    assert list(tables.values()) == sorted(tables.values(), reverse=True)
    before = report(engine).storage.bytes
    for _ in range(50):
        log_attempt(engine, "Greet", error="long " * 10_000)
    assert report(engine).storage.bytes > before


def test_the_oldest_event_and_attempt_are_reported(engine: Engine) -> None:
    assert report(engine).storage.oldest_event_at is None
    for age in (HOUR, 3 * HOUR):
        add_event(engine, age=age)
    log_attempt(engine, "Greet", age=2 * HOUR)
    found = report(engine)
    assert found.storage.oldest_event_at is not None
    assert found.storage.oldest_attempt_at is not None
    assert about(found.at - found.storage.oldest_event_at, 3 * HOUR)
    assert about(found.at - found.storage.oldest_attempt_at, 2 * HOUR)


def test_a_snapshot_held_for_long_is_reported_with_its_holder(
    engine: Engine, database_url: str
) -> None:
    with psycopg.connect(database_url, application_name="a long report") as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("SELECT 1")
        with engine.connect() as connection:
            assert holders(connection) == ()
            (found,) = holders(connection, long=AT_ONCE)
        pid = str(holder.info.backend_pid)
    assert (found.kind, found.name, found.application) == ("transaction", pid, "a long report")
    assert found.held_for is not None
    assert found.held_for > AT_ONCE


def test_an_open_transaction_that_holds_nothing_is_not_reported(
    engine: Engine, database_url: str
) -> None:
    with psycopg.connect(database_url) as idle, engine.connect() as connection:
        idle.execute("SELECT 1")
        assert holders(connection, long=AT_ONCE) == ()


def test_a_role_that_may_not_look_into_the_holder_still_sees_that_it_holds(
    engine: Engine, database_url: str
) -> None:
    role = f"nobody_{uuid4().hex[:8]}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
    try:
        with psycopg.connect(database_url) as holder, engine.connect() as connection:
            holder.execute("CREATE TEMPORARY TABLE something ()")
            connection.execute(text(f"SET ROLE {role}"))
            assert holders(connection, long=AT_ONCE) == ()
            (found,) = holders(connection, many=-1)
            connection.execute(text("RESET ROLE"))
            assert found.name == str(holder.info.backend_pid)
        assert found.held_for is None
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP ROLE {role}"))


def test_the_schema_is_reported_with_what_this_release_needs(engine: Engine) -> None:
    found = report(engine)
    assert found.revision == found.needed_revision
    with engine.begin() as connection:
        connection.execute(text("UPDATE kratos_sync.alembic_version SET version_num = '9999'"))
    assert report(engine).revision == "9999"
    assert report(engine).needed_revision == found.needed_revision


def test_a_database_that_was_not_migrated_is_refused(empty_database_url: str) -> None:
    engine = connect(SecretStr(empty_database_url), pool_size=2)
    try:
        with pytest.raises(SchemaTooOld, match="kratos-sync migrate"):
            report(engine)
    finally:
        engine.dispose()


def test_a_database_that_is_away_is_an_unavailable_ledger() -> None:
    engine = connect(SecretStr("postgresql://nobody@127.0.0.1:1/nothing"), pool_size=2)
    with pytest.raises(LedgerUnavailable):
        report(engine)


def test_what_may_lose_commits_is_named(tmp_path: Path) -> None:
    careless = {"fsync": "off", "full_page_writes": "off"}
    with EmbeddedPostgres(tmp_path / "postgres", careless) as server:
        engine = connect(SecretStr(server.url), pool_size=2)
        migrate(engine)
        found = report(engine)
        engine.dispose()
    assert found.unsafe == ("fsync", "full_page_writes")


def test_nothing_is_unsafe_by_default(engine: Engine) -> None:
    assert report(engine).unsafe == ()
