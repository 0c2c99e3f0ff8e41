"""What only the identities in PostgreSQL can be asked."""

import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.identities.kratos_identities import PostgresKratosIdentities
from kratos_sync.infrastructure.postgres.transaction import Transaction
from tests.domain.people import ADA, GRACE, NOON, cause, exact, met, minutes, webhook
from tests.infrastructure.statements import statements
from tests.suites.occurrences import HEDY, MARY, snapshot_of
from tests.suites.stores import identities_in_postgres
from tests.suites.test_kratos_identities import stored
from tests.waiting import DEADLINE_SECONDS, until

TIME_LIMIT = timedelta(seconds=20)


def columns_of_ada(connection: Connection, *columns: str) -> tuple[Any, ...]:
    statement = f"SELECT {', '.join(columns)} FROM kratos_sync.kratos_identities WHERE id = :id"
    return tuple(connection.execute(text(statement), {"id": ADA}).one())


def test_absent_is_sql_null_and_null_is_json_null(engine: Engine) -> None:
    stored(identities_in_postgres(engine), webhook(metadata_public=None))

    with engine.connect() as connection:
        assert columns_of_ada(
            connection,
            "metadata_public IS NULL",
            "metadata_public = 'null'::jsonb",
            "metadata_admin IS NULL",
        ) == (False, True, True)


def test_the_columns_can_be_queried_as_kratos_names_them(engine: Engine) -> None:
    stored(identities_in_postgres(engine), exact(external_id="crm-7"))

    with engine.connect() as connection:
        assert columns_of_ada(
            connection,
            "traits -> 'name' ->> 'first'",
            "verifiable_addresses -> 0 ->> 'value'",
            "external_id",
            "state",
            "created_at",
            "version",
        ) == ("Ada", "ada@example.org", "crm-7", "active", NOON, 1)


def test_everybody_a_batch_is_about_is_loaded_by_one_statement(engine: Engine) -> None:
    people = (ADA, GRACE, MARY)
    for who in people:
        stored(identities_in_postgres(engine), snapshot_of(who))
    transaction = Transaction(engine)

    with transaction.begin(TIME_LIMIT), statements() as seen:
        transaction.subjects = people
        identities = PostgresKratosIdentities(transaction)
        found = [identities.find(who) for who in people]

    assert [each and each.id for each in found] == list(people)
    assert len(seen) == 1


def test_somebody_else_may_be_looked_up_later(engine: Engine) -> None:
    store = identities_in_postgres(engine)
    stored(store, snapshot_of(ADA))
    stored(store, snapshot_of(GRACE))
    transaction = Transaction(engine)

    with transaction.begin(TIME_LIMIT):
        transaction.subjects = (ADA,)
        identities = PostgresKratosIdentities(transaction)
        ada, grace = identities.find(ADA), identities.find(GRACE)

        assert ada is not None
        assert grace is not None
        assert identities.find(ADA) is ada


def test_who_is_not_there_is_looked_up_once(engine: Engine) -> None:
    transaction = Transaction(engine)

    with transaction.begin(TIME_LIMIT):
        identities = PostgresKratosIdentities(transaction)
        identities.find(ADA)
        with statements() as seen:
            assert identities.find(ADA) is None

    assert seen == []


def test_what_did_not_change_is_not_written(engine: Engine) -> None:
    store = identities_in_postgres(engine)
    stored(store, snapshot_of(ADA))
    stored(store, snapshot_of(GRACE))

    with statements() as seen, store() as identities:
        for who in (ADA, GRACE):
            found = identities.find(who)
            assert found is not None
            found.update(snapshot_of(who), at=minutes(9), cause=cause(9))

    assert [each for each in seen if each.startswith("INSERT")] == []


def test_all_that_changed_is_written_in_one_go(engine: Engine) -> None:
    store = identities_in_postgres(engine)
    people = (ADA, GRACE, MARY, HEDY)

    with statements() as seen, store() as identities:
        for who in people:
            identities.add(KratosIdentity.seen(snapshot_of(who), at=NOON, cause=cause()))

    assert len([each for each in seen if each.startswith("INSERT")]) == 1


def test_a_found_identity_is_held_until_the_end_of_the_transaction(engine: Engine) -> None:
    store = identities_in_postgres(engine)
    stored(store, webhook())
    order: list[str] = []

    def rename() -> None:
        with store() as identities:
            ada = identities.find(ADA)
            order.append("the second has found her")
            assert ada is not None
            ada.update(webhook(2, state="inactive"), at=minutes(2), cause=cause(2))

    second = threading.Thread(target=rename, daemon=True)
    with store() as identities:
        ada = identities.find(ADA)
        assert ada is not None
        second.start()
        until(lambda: somebody_waits(engine))
        ada.update(webhook(1, traits={"name": "Ada King"}), at=minutes(1), cause=cause(3))
        order.append("the first is done")
    second.join(DEADLINE_SECONDS)

    with store() as identities:
        ada = identities.find(ADA)
    assert order == ["the first is done", "the second has found her"]
    assert ada is not None
    assert (ada.version, ada.state) == (3, "inactive")


def test_whoever_adds_the_same_identity_is_waited_for(engine: Engine) -> None:
    store = identities_in_postgres(engine)
    found: list[bool] = []

    def look() -> None:
        with store() as identities:
            found.append(identities.find(ADA) is not None)

    second = threading.Thread(target=look, daemon=True)
    with store() as identities:
        assert identities.find(ADA) is None
        second.start()
        until(lambda: somebody_waits(engine))
        identities.add(KratosIdentity.seen(webhook(), at=NOON, cause=cause()))
    second.join(DEADLINE_SECONDS)

    assert found == [True]


def somebody_waits(engine: Engine) -> bool:
    statement = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with engine.connect() as connection:
        return bool(connection.execute(statement).scalar_one() == 1)


def test_an_identity_that_was_changed_behind_our_back_is_a_conflict(engine: Engine) -> None:
    store = identities_in_postgres(engine)
    stored(store, webhook())

    def add_without_looking() -> None:
        with store() as identities:
            identities.add(KratosIdentity.seen(webhook(7), at=minutes(7), cause=cause(7)))

    with pytest.raises(ConcurrencyConflict, match="meanwhile"):
        add_without_looking()

    with engine.connect() as connection:
        assert columns_of_ada(connection, "version", "updated_at") == (1, NOON)


def test_a_conflict_on_one_identity_writes_none_of_the_batch(engine: Engine) -> None:
    store = identities_in_postgres(engine)
    stored(store, webhook())

    def add_both() -> None:
        with store() as identities:
            identities.add(met(webhook(7)))
            identities.add(met(snapshot_of(GRACE)))

    with pytest.raises(ConcurrencyConflict):
        add_both()

    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id FROM kratos_sync.kratos_identities"))
        assert list(rows.scalars()) == [ADA]


def test_what_was_done_since_the_checkpoint_can_be_taken_back(engine: Engine) -> None:
    """Somebody only loaded, somebody changed before, somebody added before, somebody new."""
    store = identities_in_postgres(engine)
    for who in (ADA, GRACE):
        stored(store, snapshot_of(who))
    transaction = Transaction(engine)

    with transaction.begin(TIME_LIMIT):
        identities = PostgresKratosIdentities(transaction)
        renamed(identities, GRACE, "before", 1)
        identities.add(met(snapshot_of(MARY)))
        identities.collect_events()
        transaction.savepoint()
        for who in (ADA, GRACE, MARY):
            renamed(identities, who, "after", 2)
        identities.add(met(snapshot_of(HEDY)))

        assert transaction.roll_back_to_savepoint(ValueError())
        assert identities.collect_events() == []
        transaction.commit()

    with store() as identities:
        names = {who: name_of(identities.find(who)) for who in (ADA, GRACE, MARY, HEDY)}
        is_there = {who: identities.find(who) is not None for who in names}
    assert names[GRACE] == "before"
    assert "after" not in names.values()
    assert is_there[MARY]
    assert not is_there[HEDY]


def test_who_was_taken_back_can_be_met_again(engine: Engine) -> None:
    store = identities_in_postgres(engine)
    transaction = Transaction(engine)

    with transaction.begin(TIME_LIMIT):
        identities = PostgresKratosIdentities(transaction)
        transaction.savepoint()
        assert identities.find(ADA) is None
        identities.add(met(snapshot_of(ADA)))
        assert transaction.roll_back_to_savepoint(ValueError())

        transaction.savepoint()
        assert identities.find(ADA) is None
        identities.add(met(snapshot_of(ADA)))
        transaction.commit()

    with store() as identities:
        assert identities.find(ADA) is not None


def renamed(identities: KratosIdentities, who: UUID, name: str, minute: int) -> None:
    found = identities.find(who)
    assert found is not None
    snapshot = webhook(minute, id=str(who), traits={"name": name})
    found.update(snapshot, at=minutes(minute), cause=cause(minute))


def name_of(identity: KratosIdentity | None) -> object:
    if identity is None:
        return None
    assert isinstance(identity.traits, dict)
    return identity.traits.get("name")
