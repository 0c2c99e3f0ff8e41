"""Webhooks are recorded during a migration, also of big tables and beside a long dump."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.infrastructure import migrations
from kratos_sync.infrastructure.migrations import (
    ConcurrentIndex,
    current_revision,
    migrate,
    newest_revision,
)
from kratos_sync.infrastructure.postgres.engine import connect
from tests.releases import add_next_revision
from tests.waiting import DEADLINE_SECONDS, until

BEFORE = newest_revision()
MANY = 150_000
LONGEST_PAUSE_SECONDS = 1
FILL = """
    INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)
    SELECT gen_random_uuid(), 'kratos_identity.updated', gen_random_uuid(), now(), '{}', 'webhook'
    FROM generate_series(1, %s)
"""
ADD_DELIVERIES = """
    INSERT INTO kratos_sync.deliveries (event_id, consumer, subject)
    SELECT id, 'SyncKratosIdentity', subject FROM kratos_sync.events
"""
RECORD = """
    WITH event AS (
        INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)
        VALUES (gen_random_uuid(), 'kratos_identity.updated', gen_random_uuid(), now(), '{}', 'w')
        RETURNING id, subject
    )
    INSERT INTO kratos_sync.deliveries (event_id, consumer, subject)
    SELECT id, 'SyncKratosIdentity', subject FROM event
"""
DUMP = """
    LOCK TABLE kratos_sync.events, kratos_sync.deliveries, kratos_sync.kratos_identities
    IN ACCESS SHARE MODE
"""


@pytest.fixture
def old(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Engine]:
    """A database of this release, when the next one brings another revision."""
    engine = connect(SecretStr(empty_database_url), pool_size=4)
    migrate(engine)
    revision = add_next_revision(tmp_path)
    monkeypatch.setattr(migrations, "VERSIONS", (*migrations.VERSIONS, tmp_path))
    newest_revision.cache_clear()
    assert newest_revision() == revision
    yield engine
    newest_revision.cache_clear()
    engine.dispose()


def fill(url: str, many: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(FILL, (many,))
        connection.execute(ADD_DELIVERIES)


class Writer:
    """Records one event after the other, and is ended by a long wait for a lock."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self.recorded = 0

    def _write(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"SET lock_timeout = '{LONGEST_PAUSE_SECONDS}s'".encode())
            while not self._stopped.wait(0.002):
                connection.execute(RECORD)
                self.recorded += 1

    def goes_on(self) -> None:
        """Wait until some more events were recorded."""
        wanted = self.recorded + 10
        until(lambda: self.recorded >= wanted or not self._thread.is_alive())
        assert self.recorded >= wanted

    def __enter__(self) -> "Writer":
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.goes_on()
        self._stopped.set()
        self._thread.join(DEADLINE_SECONDS)


@contextmanager
def dumping(
    url: str, level: psycopg.IsolationLevel = psycopg.IsolationLevel.REPEATABLE_READ
) -> Iterator[psycopg.Connection]:
    """A dump: a snapshot and a weak lock on every table, for long. Other levels: the lock."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = level
        connection.execute(DUMP)
        connection.execute("SELECT count(*) FROM kratos_sync.alembic_version")
        yield connection


def is_valid(engine: Engine, index: str) -> bool | None:
    statement = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
    with engine.connect() as connection:
        return connection.execute(
            text(statement), {"name": f"kratos_sync.{index}"}
        ).scalar_one_or_none()


def test_events_are_recorded_while_a_big_table_is_migrated(
    old: Engine, empty_database_url: str
) -> None:
    fill(empty_database_url, MANY)

    with Writer(empty_database_url):
        assert migrate(old) == (BEFORE, newest_revision())


def until_it_waits(engine: Engine, times: int = 1) -> None:
    """Wait until the migration has waited so many times for a lock, or a snapshot to end."""
    waits = text("""
        SELECT query_start FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
          AND query !~ 'INSERT INTO kratos_sync.events'
    """)
    seen: set[object] = set()

    def looks() -> bool:
        with engine.connect() as connection:
            seen.update(connection.execute(waits).scalars())
        return len(seen) >= times

    until(looks)


@pytest.mark.parametrize(
    ("level", "times"),
    [
        pytest.param(psycopg.IsolationLevel.REPEATABLE_READ, 1, id="snapshot"),
        pytest.param(psycopg.IsolationLevel.READ_COMMITTED, 2, id="lock"),
    ],
)
def test_events_are_recorded_while_a_migration_waits_for_a_dump(
    old: Engine, empty_database_url: str, level: psycopg.IsolationLevel, times: int
) -> None:
    moving = threading.Thread(target=migrate, args=(old,), daemon=True)
    with Writer(empty_database_url) as writer:
        with dumping(empty_database_url, level):
            moving.start()
            until_it_waits(old, times)
            writer.goes_on()
            assert moving.is_alive()
        moving.join(DEADLINE_SECONDS)

    assert is_valid(old, "events_recorded_at")
    with old.connect() as connection:
        assert current_revision(connection) == newest_revision()


def test_a_dump_that_does_not_end_is_named_and_leaves_the_schema_as_it_was(
    old: Engine, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "GIVE_UP_SECONDS", 1.0)
    with (
        dumping(empty_database_url),
        pytest.raises(migrations.MigrationBlocked, match=r"a transaction \(.*\) holds"),
    ):
        migrate(old)

    with old.connect() as connection:
        assert current_revision(connection) == BEFORE
    migrate(old)
    with old.connect() as connection:
        assert current_revision(connection) == newest_revision()


def test_a_second_migration_beside_an_index_build_waits_for_the_first(
    old: Engine, empty_database_url: str
) -> None:
    movings = [threading.Thread(target=migrate, args=(old,), daemon=True) for _ in range(2)]
    with dumping(empty_database_url):
        for moving in movings:
            moving.start()
        until_it_waits(old)
    for moving in movings:
        moving.join(DEADLINE_SECONDS)

    with old.connect() as connection:
        assert current_revision(connection) == newest_revision()


def test_an_index_that_an_interrupted_build_left_is_built_anew(
    old: Engine, empty_database_url: str
) -> None:
    build = "CREATE INDEX CONCURRENTLY events_recorded_at_id ON kratos_sync.events (recorded_at)"
    with dumping(empty_database_url) as dump:
        dump.execute("SELECT FROM kratos_sync.events")
        with psycopg.connect(empty_database_url, autocommit=True) as killed:
            killed.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                killed.execute(build)
    assert is_valid(old, "events_recorded_at_id") is False

    migrate(old)

    assert is_valid(old, "events_recorded_at")
    assert is_valid(old, "events_recorded_at_id") is None


def test_an_index_that_is_there_is_not_built_again(engine: Engine) -> None:
    index = ConcurrentIndex("events_name", "events (name)")

    def oid() -> int | None:
        with engine.connect() as connection:
            found = "SELECT CAST(to_regclass('kratos_sync.events_name') AS oid)"
            return connection.execute(text(found)).scalar_one()

    migrations._build(engine, index)
    first = oid()
    migrations._build(engine, index)

    assert first is not None
    assert oid() == first
