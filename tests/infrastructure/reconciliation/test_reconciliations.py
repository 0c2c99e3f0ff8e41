"""What only a real database can show: commits, connections, whole tables, and room."""

import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.reconciliation import AnotherReconciliation, ReconciliationLost
from kratos_sync.application.reconcile import DeletesRefused
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.infrastructure.reconciliation import reconciliation, runs
from kratos_sync.infrastructure.reconciliation.reconciliation import PostgresReconciliation
from kratos_sync.infrastructure.reconciliation.runs import PostgresReconciliations
from tests.kratos.persons import many
from tests.suites.ledgers import PostgresLedger
from tests.suites.reconciling import World, world_on_postgres

LATER = "2026-03-01T00:00:00Z"


@pytest.fixture
def world(engine: Engine) -> World:
    world = world_on_postgres(engine)
    world.kratos.page_size = 2
    return world


@pytest.fixture
def others(database_url: str) -> Iterator[PostgresReconciliations]:
    """Another process' reconciliations, in the same database."""
    engine = connect(SecretStr(database_url), 2)
    yield PostgresReconciliations(engine)
    engine.dispose()


def ask(world: World, statement: str, **parameters: object) -> list[dict[str, Any]]:
    assert isinstance(world.ledger, PostgresLedger)
    return world.ledger.query(statement, **parameters)


def everything(world: World) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    names = "SELECT tablename FROM pg_tables WHERE schemaname = 'kratos_sync'"
    return {
        each["tablename"]: [
            str(row["row"])
            for row in ask(world, f"SELECT t::text AS row FROM kratos_sync.{each['tablename']} t")
        ]
        for each in ask(world, names)
    }


def changed_and_gone(world: World) -> list[UUID]:
    """Six whom we hold, of whom the first four have changed and the last is gone."""
    people = many(6)
    world.copy(*people)
    for document in people[:4]:
        world.town.put({**document, "updated_at": LATER})
    world.town.remove(UUID(people[5]["id"]))
    return [UUID(each["id"]) for each in people]


def lose_connection(world: World) -> None:
    """End the connection that has the turn."""
    ask(
        world,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        " AND (classid::bigint << 32) + objid::bigint = :key"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        key=reconciliation.LOCK_KEY,
    )


def test_a_dry_run_writes_nothing_at_all(world: World) -> None:
    changed_and_gone(world)
    before = everything(world)

    found = world.reconcile(dry_run=True)

    assert (found.stale, found.deleted) == (4, 1)
    assert everything(world) == before
    assert before["kratos_identities"]


def test_what_a_page_shows_is_recorded_with_the_note_of_how_far_it_is_or_not_at_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_and_gone(world)
    events = len(world.events())
    note, notes = PostgresReconciliation._note, 0

    def fail_once(*arguments: Any) -> None:
        nonlocal notes
        notes += 1
        if notes == 2:
            raise KeyboardInterrupt
        note(*arguments)

    monkeypatch.setattr(PostgresReconciliation, "_note", fail_once)
    with pytest.raises(KeyboardInterrupt):
        world.reconcile()
    assert len(world.events()) == events + 2

    found = world.reconcile()

    assert len(world.events()) == events + 5
    assert (found.pages, found.stale, found.deleted) == (3, 4, 1)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_lost_connection_ends_it_and_the_next_goes_on(world: World, steps: int) -> None:
    changed_and_gone(world)
    events = len(world.events())
    run = world.use_case().run(dry_run=False)
    for _ in range(steps + 1):
        next(run)
    lose_connection(world)

    with pytest.raises(LedgerUnavailable):
        list(run)
    found = world.reconcile()

    assert (found.pages, found.stale, found.deleted) == (3, 4, 1)
    assert len(world.events()) == events + 5


def test_losing_the_connection_loses_the_lock(
    world: World, others: PostgresReconciliations
) -> None:
    changed_and_gone(world)
    with world.reconciliations.begin(dry_run=False) as run:
        page = world.kratos.page(None)
        lose_connection(world)
        with pytest.raises(LedgerUnavailable):
            run.compare_page(page, world.now(), 10)
        with others.begin(dry_run=True), pytest.raises(ReconciliationLost):
            run.compare_page(page, world.now(), 10)


def test_there_is_one_at_a_time_among_all_processes(
    world: World, others: PostgresReconciliations
) -> None:
    mine, theirs = world.reconciliations.begin(dry_run=False), others.begin(dry_run=False)
    with mine, pytest.raises(AnotherReconciliation), theirs:
        pass
    with others.begin(dry_run=False):
        pass


def test_one_that_was_interrupted_long_ago_starts_again(world: World) -> None:
    changed_and_gone(world)
    run = world.use_case().run(dry_run=False)
    next(run), next(run)
    run.close()
    ask(world, "UPDATE kratos_sync.reconciliations SET seen_at = now() - interval '25 hours'")

    with world.reconciliations.begin(dry_run=False) as begun:
        assert not begun.resumed
        assert begun.token is None


def test_the_newest_thousand_are_remembered(world: World) -> None:
    ask(
        world,
        "INSERT INTO kratos_sync.reconciliations (held, ended_at)"
        " SELECT 0, now() FROM generate_series(1, 1100)",
    )
    world.reconcile()
    (row,) = ask(world, "SELECT count(*) AS number FROM kratos_sync.reconciliations")
    assert row["number"] == runs.KEPT


def test_a_run_records_its_outcome(world: World) -> None:
    changed_and_gone(world)
    world.reconcile()
    row = ask(world, "SELECT * FROM kratos_sync.reconciliations ORDER BY id DESC LIMIT 1")[0]
    assert (row["outcome"], row["pages"], row["identities"], row["held"]) == ("completed", 3, 5, 6)
    assert (row["known"], row["missing"], row["stale"], row["unseen"], row["gone"]) == (
        5,
        0,
        4,
        1,
        1,
    )
    assert row["fields"] == {"updated_at": 4}
    assert row["ended_at"] > row["started_at"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_however_many_are_not_listed_they_take_little_room(world: World, dry_run: bool) -> None:
    number = 20_000
    ask(
        world,
        "INSERT INTO kratos_sync.kratos_identities (id, schema_id, synced_at, version)"
        " SELECT gen_random_uuid(), 'person', now() - interval '1 day', 1"
        f" FROM generate_series(1, {number})",
    )
    world.kratos.page(None)
    tracemalloc.start()
    try:
        with pytest.raises(DeletesRefused, match="Kratos lists no identity"):
            world.reconcile(dry_run=dry_run)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < number * 16 * 6


def test_all_that_are_not_listed_may_be_deleted_if_it_is_allowed(world: World) -> None:
    people = many(300)
    world.kratos.page_size = 500
    world.copy(*people)
    for document in people[1:]:
        world.town.remove(UUID(document["id"]))

    found = world.reconcile(allow_deletes=299)

    assert found.deleted == 299
    assert ask(world, "SELECT FROM kratos_sync.unseen_identities") == []


def test_a_run_is_due_by_the_databases_clock(world: World, others: PostgresReconciliations) -> None:
    world.reconcile()
    assert not others.is_due(timedelta(hours=1))
    ask(world, "UPDATE kratos_sync.reconciliations SET started_at = now() - interval '1 hour'")
    assert others.is_due(timedelta(hours=1))


def test_what_consumers_owe_is_counted_up_to_a_bound(world: World) -> None:
    for document in many(5):
        world.town.put(document)
    world.reconcile()
    assert [world.reconciliations.in_flight(most) for most in (3, 9)] == [3, 5]
    with world.reconciliations.begin(dry_run=True) as run:
        assert run.findings.held == 0
    ask(world, "UPDATE kratos_sync.deliveries SET failed_at = now()")
    assert world.reconciliations.in_flight(9) == 0


def test_an_unknown_identity_is_not_found(world: World) -> None:
    with world.reconciliations.begin(dry_run=False) as run:
        run.settle([], [uuid4()], world.now())
        assert run.unlisted(9) == []


def test_where_most_have_no_schema_the_others_decide(world: World, engine: Engine) -> None:
    world.copy(*many(2))
    with engine.begin() as connection:
        connection.execute(text("UPDATE kratos_sync.kratos_identities SET schema_url = NULL"))
    with world.reconciliations.begin(dry_run=True) as run:
        assert (run.findings.held, list(run.schema_urls)) == (2, [])
