"""The schema's history."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.script import Script, ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure import migrations
from kratos_sync.infrastructure.ledger.status import DatabaseReadiness
from kratos_sync.infrastructure.migrations import (
    SchemaTooNew,
    SchemaTooOld,
    current_revision,
    migrate,
    newest_revision,
    require_schema,
)
from kratos_sync.infrastructure.postgres.engine import connect
from tests.domain.people import ADA, GRACE, address, exact, minutes
from tests.infrastructure.ledger.rows import add_delivery, log_attempt
from tests.releases import add_next_revision
from tests.suites.occurrences import HEDY, MARY, snapshot_of
from tests.suites.stores import identities_in_postgres
from tests.suites.test_kratos_identities import stored
from tests.waiting import at_once

REVISIONS = list(ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions())


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Engine]:
    """A database that nobody has migrated."""
    engine = connect(SecretStr(empty_database_url), pool_size=2)
    yield engine
    engine.dispose()


def set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE kratos_sync.alembic_version SET version_num = :revision"),
            {"revision": revision},
        )


def revision_of(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return current_revision(connection)


def columns_of(engine: Engine) -> dict[str, list[str]]:
    statement = text(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'kratos_sync' ORDER BY table_name, ordinal_position"
    )
    found: dict[str, list[str]] = {}
    with engine.connect() as connection:
        for table, column in connection.execute(statement):
            found.setdefault(table, []).append(column)
    return found


def test_an_empty_database_comes_to_the_newest_revision(empty: Engine) -> None:
    assert revision_of(empty) is None

    assert migrate(empty) == (None, newest_revision())

    assert revision_of(empty) == newest_revision()
    require_schema(empty)


def test_retries_of_dead_letters_until_then_are_counted(empty: Engine) -> None:
    migrations._apply(empty, migrations.History("kratos_sync", migrations.VERSIONS), "0003")
    retried, never = (
        add_delivery(empty, "Greet", failed_ago=timedelta(), error_type="ValueError")
        for _ in range(2)
    )
    for number in (1, 2):
        log_attempt(empty, "Greet", retried, number=number, outcome="retried")

    migrate(empty)

    with empty.connect() as connection:
        rows = connection.execute(text("SELECT event_id, retries FROM kratos_sync.deliveries"))
        assert {(row.event_id, row.retries) for row in rows} == {(retried, 2), (never, None)}


def test_migrating_again_changes_nothing(empty: Engine) -> None:
    migrate(empty)
    before = columns_of(empty)

    assert migrate(empty) == (newest_revision(), newest_revision())

    assert columns_of(empty) == before


def test_processes_that_migrate_at_once_wait_for_each_other(empty_database_url: str) -> None:
    moves: list[tuple[str | None, str]] = []

    def run() -> None:
        engine = connect(SecretStr(empty_database_url), pool_size=2)
        try:
            moves.append(migrate(engine))
        finally:
            engine.dispose()

    at_once(*[run] * 3)

    newest = newest_revision()
    assert sorted(moves, key=str) == [(newest, newest), (newest, newest), (None, newest)]


def test_a_migration_that_fails_leaves_nothing(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE SCHEMA kratos_sync"))
        connection.execute(text("CREATE TABLE kratos_sync.attempts ()"))

    with pytest.raises(
        Exception,
        match=r'0001 failed with SQLSTATE 42P07 \(relation "attempts" already exists\), at: ',
    ):
        migrate(empty)

    assert revision_of(empty) is None
    assert list(columns_of(empty)) == []


def test_nothing_is_made_outside_our_schema(empty: Engine) -> None:
    migrate(empty)
    statement = text(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema NOT IN"
        " ('kratos_sync', 'pg_catalog', 'information_schema')"
    )
    with empty.connect() as connection:
        assert connection.execute(statement).scalar_one() == 0


def test_every_table_that_others_rely_on_is_there(engine: Engine) -> None:
    columns = columns_of(engine)

    assert set(columns) >= {"kratos_identities", "events", "deliveries", "attempts"}
    assert set(columns["kratos_identities"]) >= {
        "id",
        "schema_id",
        "state",
        "state_changed_at",
        "traits",
        "verifiable_addresses",
        "recovery_addresses",
        "metadata_public",
        "metadata_admin",
        "external_id",
        "organization_id",
        "created_at",
        "updated_at",
        "deleted_at",
        "synced_at",
        "version",
    }
    assert set(columns["events"]) >= {
        "id",
        "name",
        "subject",
        "occurred_at",
        "recorded_at",
        "payload",
        "source",
        "dedupe_key",
        "trace_context",
    }
    assert set(columns["deliveries"]) >= {
        "event_id",
        "consumer",
        "attempts",
        "due_at",
        "last_error",
        "failed_at",
    }
    assert set(columns["attempts"]) >= {
        "event_id",
        "consumer",
        "number",
        "outcome",
        "started_at",
        "duration",
        "error",
    }
    assert columns["identity_addresses"] == [
        "identity_id",
        "via",
        "value",
        "verified",
        "verified_at",
    ]


def test_json_is_jsonb_where_others_query_it(engine: Engine) -> None:
    statement = text(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'kratos_sync'"
        " AND table_name = 'kratos_identities' AND data_type = 'jsonb'"
    )
    with engine.connect() as connection:
        found = set(connection.execute(statement).scalars())

    assert found >= {
        "traits",
        "verifiable_addresses",
        "recovery_addresses",
        "metadata_public",
        "metadata_admin",
    }


def test_a_database_that_was_not_migrated_is_refused_in_one_line(empty: Engine) -> None:
    with pytest.raises(SchemaTooOld) as refusal:
        require_schema(empty)

    assert str(refusal.value) == (
        "The database schema is at no revision, and this release needs"
        f" {newest_revision()}: run `kratos-sync migrate` first."
    )


def test_an_older_schema_is_refused_in_one_line(engine: Engine) -> None:
    set_revision(engine, "0000")

    with pytest.raises(SchemaTooOld, match=r"^The database schema is at 0000, .* first\.$"):
        require_schema(engine)


def test_a_newer_schema_is_accepted_and_left_as_it_is(engine: Engine) -> None:
    set_revision(engine, "9999")
    before = columns_of(engine)

    require_schema(engine)

    assert migrate(engine) == ("9999", "9999")
    assert revision_of(engine) == "9999"
    assert columns_of(engine) == before


def remove_what_releases_before_use(engine: Engine, oldest: str) -> None:
    with engine.begin() as connection:
        connection.execute(migrations.SET_OLDEST_RELEASE, {"oldest": oldest})


def test_a_newer_schema_that_lacks_what_this_release_uses_is_refused_in_one_line(
    engine: Engine,
) -> None:
    set_revision(engine, "9999")
    remove_what_releases_before_use(engine, "9998")

    uses: list[tuple[Callable[[Engine], object], type[Exception]]] = [
        (require_schema, SchemaTooNew),
        (migrate, SchemaTooNew),
        (lambda engine: DatabaseReadiness(engine).check(), LedgerUnavailable),
    ]
    for use, error in uses:
        with pytest.raises(error) as refusal:
            use(engine)
        assert str(refusal.value) == (
            "The database schema is at 9999, which needs a release of 9998 or newer, and this one"
            f" is of {newest_revision()}: run a newer release."
        )


def test_a_newer_schema_that_keeps_what_this_release_uses_is_accepted(engine: Engine) -> None:
    set_revision(engine, "9999")
    remove_what_releases_before_use(engine, newest_revision())

    require_schema(engine)

    assert migrate(engine) == ("9999", "9999")


REMOVING = re.compile(
    r"\bDROP (TABLE|VIEW|COLUMN|FUNCTION|TRIGGER)\b|\bALTER (?!INDEX)[^;]*\bRENAME\b"
    r"|\bSET NOT NULL\b|\bALTER COLUMN \w+ (SET DATA )?TYPE\b|\bADD (CONSTRAINT|CHECK)\b"
)


@pytest.mark.parametrize(
    ("statement", "removes"),
    [
        ("ALTER TABLE kratos_sync.events ADD COLUMN x text NOT NULL DEFAULT ''", False),
        ("DROP INDEX a; ALTER INDEX b RENAME TO a", False),
        ("ALTER TABLE kratos_sync.events ALTER COLUMN x DROP NOT NULL", False),
        ("ALTER TABLE kratos_sync.events DROP COLUMN x", True),
        ("ALTER TABLE kratos_sync.events RENAME COLUMN x TO y", True),
        ("ALTER TABLE kratos_sync.events ALTER COLUMN x SET NOT NULL", True),
        ("ALTER TABLE kratos_sync.events ALTER COLUMN x TYPE bigint", True),
    ],
)
def test_what_removes_something_is_recognised(statement: str, removes: bool) -> None:
    assert bool(REMOVING.search(statement)) is removes


@pytest.mark.parametrize("script", REVISIONS, ids=lambda script: script.revision)
def test_a_revision_that_removes_something_names_the_oldest_release_that_may_run_on_it(
    script: Script,
) -> None:
    removes = REMOVING.search(Path(script.path).read_text())
    oldest = getattr(script.module, "OLDEST_RELEASE", None)

    assert bool(removes) == bool(oldest)
    # The release before runs on it too: otherwise no upgrade is possible with traffic.
    assert oldest is None or oldest < script.revision


def test_a_revision_says_which_releases_may_run_on_it_from_then_on(
    empty: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(empty)
    before = newest_revision()
    revision = add_next_revision(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(f'OLDEST_RELEASE = "{before}"\n{file.read_text()}')
    monkeypatch.setattr(migrations, "VERSIONS", (*migrations.VERSIONS, tmp_path))
    newest_revision.cache_clear()

    try:
        assert migrate(empty) == (before, revision)
    finally:
        monkeypatch.undo()
        newest_revision.cache_clear()

    with empty.connect() as connection:
        assert connection.execute(migrations.OLDEST_RELEASE).scalar_one() == before
    require_schema(empty)


def test_readiness_asks_for_the_schema(engine: Engine) -> None:
    readiness = DatabaseReadiness(engine)
    readiness.check()

    set_revision(engine, "0000")

    assert readiness.name == "database"
    with pytest.raises(LedgerUnavailable, match=r"at 0000, .* run `kratos-sync migrate` first"):
        readiness.check()


def test_revisions_are_numbers_of_four_digits() -> None:
    assert newest_revision().isdigit()
    assert len(newest_revision()) == 4


def test_the_view_of_addresses_shows_each_with_whose_it_is(engine: Engine) -> None:
    identities = identities_in_postgres(engine)
    home = address("ada@home.org", verified_at=minutes(3))
    phone = address("+36 1 234", via="sms")
    stored(identities, exact(verifiable_addresses=[home, phone]))
    stored(identities, snapshot_of(GRACE, verifiable_addresses=[]))
    stored(identities, snapshot_of(MARY, verifiable_addresses=None))
    stored(identities, snapshot_of(HEDY))
    with identities() as store:
        hedy = store.find(HEDY)
        assert hedy is not None
        hedy.mark_deleted(at=minutes(9), cause=HEDY)

    statement = text("SELECT * FROM kratos_sync.identity_addresses ORDER BY value")
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(statement)]

    assert rows == [
        (ADA, "sms", "+36 1 234", False, None),
        (ADA, "email", "ada@home.org", True, minutes(3)),
    ]


def test_the_newest_revision_is_alembics_head() -> None:
    folder = str(Path(migrations.__file__).parent)
    assert ScriptDirectory(folder).get_current_head() == newest_revision()
