"""Removing what is old, and never what somebody still needs."""

import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.application.ports.purge import AnotherPurge, PurgeReport, Removed, Retention
from kratos_sync.application.ports.replay import EventRange
from kratos_sync.infrastructure.ledger.purge import (
    KEPT,
    PostgresPurge,
    hold_off_purges,
    last_purge,
    lock_purges,
)
from kratos_sync.infrastructure.ledger.replay import PostgresRecordedEvents
from kratos_sync.infrastructure.postgres.engine import connect
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    add_delivery,
    add_event,
    add_identity,
    log_attempt,
)
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import updated
from tests.waiting import DEADLINE_SECONDS, until

DAY = timedelta(days=1)
A_MONTH = Retention(30 * DAY, 30 * DAY)
FOREVER = Retention(None, None)


def purge(engine: Engine, retention: Retention = A_MONTH, most_rows: int = 2_000) -> PurgeReport:
    return PostgresPurge(engine, most_rows).run(retention, threading.Event(), lambda _: None)


def ids(engine: Engine, table: str, column: str = "id") -> set[object]:
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT {column} FROM kratos_sync.{table}"))
        return set(rows.scalars())


def run(engine: Engine, statement: str, **parameters: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), parameters)


def waits_for_a_lock(engine: Engine) -> bool:
    with engine.connect() as connection:
        waiting = """SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
                     WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"""
        return bool(connection.execute(text(waiting)).scalar_one())


def test_attempts_by_a_clock_that_was_ahead_hide_none_of_those_that_came_later(
    engine: Engine,
) -> None:
    for _ in range(3):
        log_attempt(engine, "Greet", age=-400 * DAY)
    log_attempt(engine, "Greet", age=31 * DAY)

    assert purge(engine, most_rows=3).removed == Removed(attempts=1)


def test_what_is_older_goes_and_what_is_younger_stays(engine: Engine) -> None:
    old, young = add_event(engine, age=31 * DAY), add_event(engine, age=29 * DAY)
    log_attempt(engine, "Greet", old, age=31 * DAY)
    log_attempt(engine, "Greet", young, age=29 * DAY)

    report = purge(engine)

    assert (report.removed, report.completed) == (Removed(1, 1), True)
    assert ids(engine, "events") == {young}
    assert ids(engine, "attempts", "event_id") == {young}


def test_each_table_has_a_retention_of_its_own(engine: Engine) -> None:
    event = add_event(engine, age=31 * DAY)
    log_attempt(engine, "Greet", event, age=31 * DAY)

    assert purge(engine, FOREVER).removed == Removed()
    assert purge(engine, Retention(None, 30 * DAY)).removed == Removed(0, 1)
    assert purge(engine, Retention(30 * DAY, None)).removed == Removed(1, 0)


@pytest.mark.parametrize("failed_ago", [None, 40 * DAY], ids=["outstanding", "dead letter"])
def test_nothing_is_removed_that_a_delivery_needs(
    engine: Engine, failed_ago: timedelta | None
) -> None:
    event = add_delivery(engine, "Greet", age=50 * DAY, attempts=1, failed_ago=failed_ago)
    log_attempt(engine, "Greet", event, age=50 * DAY, outcome="failed")
    log_attempt(engine, "Count", event, age=50 * DAY)

    assert purge(engine).removed == Removed()
    assert ids(engine, "events") == {event}


def test_what_was_done_meanwhile_goes_with_the_next_purge(engine: Engine) -> None:
    add_delivery(engine, "Greet", age=50 * DAY)
    purge(engine)

    run(engine, "DELETE FROM kratos_sync.deliveries")

    assert purge(engine).removed == Removed(events=1)


@pytest.mark.parametrize("most_rows", [1, 2, 3, 100])
def test_steps_of_any_size_pass_over_what_is_kept_and_come_to_an_end(
    engine: Engine, most_rows: int
) -> None:
    kept = {add_delivery(engine, "Greet", age=50 * DAY, failed_ago=A_MINUTE) for _ in range(3)}
    for event in kept:
        log_attempt(engine, "Greet", event, age=50 * DAY, outcome="gave_up")
    for _ in range(5):
        log_attempt(engine, "Greet", add_event(engine, age=40 * DAY), age=40 * DAY)
    young = add_event(engine)
    log_attempt(engine, "Greet", young)

    assert purge(engine, most_rows=most_rows).removed == Removed(5, 5)
    assert ids(engine, "events") == kept | {young}
    assert ids(engine, "attempts", "event_id") == kept | {young}


def test_events_recorded_at_one_moment_are_all_seen(engine: Engine) -> None:
    run(
        engine,
        """INSERT INTO kratos_sync.events
                  (id, name, subject, occurred_at, recorded_at, payload, source)
           SELECT gen_random_uuid(), 'e', gen_random_uuid(), now(), now() - interval '40 d', '{}',
                  'test'
           FROM generate_series(1, 10)""",
    )
    assert purge(engine, most_rows=3).removed == Removed(events=10)


def test_identities_and_tombstones_and_counts_are_no_business_of_a_purge(engine: Engine) -> None:
    add_identity(engine)
    add_identity(engine, uuid4(), deleted_at="2001-01-01T00:00:00Z")
    run(engine, "INSERT INTO kratos_sync.registrations_per_day VALUES ('2001-01-01', 7)")
    add_event(engine, age=5_000 * DAY)

    assert purge(engine).removed == Removed(events=1)
    assert len(ids(engine, "kratos_identities")) == 2
    assert len(ids(engine, "registrations_per_day", "day")) == 1


def test_a_call_that_kratos_repeats_is_known_as_long_as_its_event_is_kept(engine: Engine) -> None:
    ledger = PostgresLedger(engine)
    webhook = Provenance("webhook", dedupe_key="the same call")
    assert ledger.publish(updated(1), webhook)
    run(engine, "DELETE FROM kratos_sync.deliveries")
    run(engine, "UPDATE kratos_sync.events SET recorded_at = now() - interval '23 h'")

    purge(engine, Retention(DAY, DAY))
    assert not ledger.publish(updated(2), webhook)

    run(engine, "UPDATE kratos_sync.events SET recorded_at = now() - interval '25 h'")
    purge(engine, Retention(DAY, DAY))
    assert ledger.publish(updated(3), webhook)


def test_a_preview_removes_nothing_and_counts_the_same(engine: Engine) -> None:
    for _ in range(5):
        log_attempt(engine, "Greet", add_event(engine, age=40 * DAY), age=40 * DAY)
    add_delivery(engine, "Greet", age=40 * DAY)

    preview = PostgresPurge(engine, 2).preview(A_MONTH, threading.Event(), lambda _: None)

    assert preview.removed == Removed(5, 5)
    assert len(ids(engine, "events")) == 6
    assert ids(engine, "purges") == set()
    assert purge(engine).removed == preview.removed


def test_a_purge_reports_its_progress_and_stops_between_two_steps(engine: Engine) -> None:
    for _ in range(5):
        add_event(engine, age=40 * DAY)
    stopped, reported = threading.Event(), list[Removed]()

    def stop_after_two_steps(removed: Removed) -> None:
        reported.append(removed)
        if len(reported) == 2:
            stopped.set()

    report = PostgresPurge(engine, most_rows=2).run(A_MONTH, stopped, stop_after_two_steps)

    assert reported == [Removed(2), Removed(4)]
    assert (report.removed, report.completed) == (Removed(4), False)
    assert len(ids(engine, "events")) == 1


def test_one_purge_is_at_work_at_a_time(engine: Engine) -> None:
    for _ in range(3):
        add_event(engine, age=40 * DAY)
    refused = list[str]()

    def try_another(_: Removed) -> None:
        with pytest.raises(AnotherPurge) as refusal:
            purge(engine)
        refused.append(str(refusal.value))

    first = PostgresPurge(engine, most_rows=1).run(A_MONTH, threading.Event(), try_another)

    assert first.removed == Removed(3)
    assert set(refused) == {"another purge is at work"}
    assert purge(engine).completed


def test_a_purge_that_went_away_is_taken_over_and_notices_it(engine: Engine) -> None:
    for _ in range(4):
        add_event(engine, age=40 * DAY)
    others = list[PurgeReport]()

    def sleep_too_long(_: Removed) -> None:
        run(engine, "UPDATE kratos_sync.purges SET seen_at = now() - interval '3 min'")
        others.append(purge(engine))

    with pytest.raises(AnotherPurge, match="taken over"):
        PostgresPurge(engine, most_rows=1).run(A_MONTH, threading.Event(), sleep_too_long)

    assert [other.removed for other in others] == [Removed(3)]


def test_an_event_that_is_being_redelivered_is_not_removed(engine: Engine) -> None:
    event = add_event(engine, age=40 * DAY)
    purging = threading.Thread(target=lambda: purge(engine), daemon=True)
    with engine.begin() as connection:
        hold_off_purges(connection)
        purging.start()
        until(lambda: waits_for_a_lock(engine))
        connection.execute(
            text(
                "INSERT INTO kratos_sync.deliveries (event_id, consumer, subject)"
                " SELECT id, 'Greet', subject FROM kratos_sync.events"
            )
        )
    purging.join(DEADLINE_SECONDS)

    assert not purging.is_alive()
    assert ids(engine, "events") == {event}


def test_an_event_that_is_being_removed_is_not_redelivered(engine: Engine) -> None:
    add_event(engine, age=40 * DAY)
    events = PostgresRecordedEvents(engine)
    now = events.now()
    stretch = EventRange("Greet", ("kratos_identity.updated",), now - 50 * DAY, now)
    replayed = list[int]()

    def replay() -> None:
        replayed.append(events.redeliver(stretch, None, 10).replayed)

    replaying = threading.Thread(target=replay, daemon=True)
    with engine.begin() as connection:
        lock_purges(connection)
        replaying.start()
        until(lambda: waits_for_a_lock(engine))
        connection.execute(text("DELETE FROM kratos_sync.events"))
    replaying.join(DEADLINE_SECONDS)

    assert replayed == [0]
    assert ids(engine, "deliveries", "event_id") == set()


def test_a_purge_is_remembered_with_what_it_removed(engine: Engine) -> None:
    with engine.connect() as connection:
        assert last_purge(connection) is None
    log_attempt(engine, "Greet", add_event(engine, age=40 * DAY), age=40 * DAY)
    purge(engine, most_rows=1)

    with engine.connect() as connection:
        last = last_purge(connection)
    assert last is not None
    assert last.removed == Removed(1, 1)
    assert last.ended_at is not None
    assert last.ended_at >= last.started_at


def test_only_the_newest_purges_are_remembered(engine: Engine) -> None:
    run(
        engine,
        """INSERT INTO kratos_sync.purges (started_at, ended_at)
           SELECT now(), now() FROM generate_series(1, :many)""",
        many=KEPT + 10,
    )
    purge(engine)
    assert len(ids(engine, "purges")) == KEPT


def test_a_purge_is_due_when_none_began_for_so_long(engine: Engine) -> None:
    purges = PostgresPurge(engine)
    assert purges.is_due(DAY)
    purge(engine)
    assert not purges.is_due(DAY)
    run(engine, "UPDATE kratos_sync.purges SET started_at = now() - interval '25 h'")
    assert purges.is_due(DAY)


def test_a_purge_without_postgresql_is_an_unavailable_ledger() -> None:
    nowhere = connect(SecretStr("postgresql://ada@/nowhere?host=/nonexistent"), pool_size=1)
    with pytest.raises(LedgerUnavailable):
        purge(nowhere)
