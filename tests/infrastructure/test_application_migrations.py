"""An application's tables: a schema and a history of their own, migrated after ours."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from kratos_sync.application.application import InvalidApplication
from kratos_sync.infrastructure.migrations import (
    History,
    MigrationFailed,
    migrate_application,
)

REVISION = """
from alembic import op

revision = "{revision}"
down_revision = {down!r}


def upgrade():
    op.execute("{statement}")
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the migrations of a package that can be imported."""
    folder = tmp_path / "acme_sync" / "migrations"
    folder.mkdir(parents=True)
    (tmp_path / "acme_sync" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop("acme_sync", None)


def add(folder: Path, revision: str, down: str | None, statement: str) -> None:
    source = REVISION.format(revision=revision, down=down, statement=statement)
    (folder / f"{revision}.py").write_text(source)


def tables(engine: Engine) -> set[str]:
    found = text("SELECT tablename FROM pg_tables WHERE schemaname = 'acme_sync'")
    with engine.connect() as connection:
        return set(connection.execute(found).scalars())


def test_revisions_run_in_the_order_of_their_history(engine: Engine, acme: Path) -> None:
    add(acme, "b2", "z1", "ALTER TABLE subscribers ADD COLUMN email text")
    add(acme, "z1", None, "CREATE TABLE subscribers (id uuid)")
    history = History.at("acme_sync:migrations")

    assert migrate_application(engine, history) == (None, "b2")
    assert migrate_application(engine, history) == ("b2", "b2")
    assert tables(engine) == {"subscribers", "alembic_version"}


def test_a_later_revision_is_added_to_those_before(engine: Engine, acme: Path) -> None:
    add(acme, "first", None, "CREATE TABLE subscribers (id uuid)")
    history = History.at("acme_sync:migrations")
    migrate_application(engine, history)
    add(acme, "second", "first", "CREATE TABLE letters (id uuid)")

    assert migrate_application(engine, history) == ("first", "second")
    assert {"subscribers", "letters"} < tables(engine)


def test_a_schema_may_be_named_by_a_word_of_sql(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "order" / "migrations"
    folder.mkdir(parents=True)
    (tmp_path / "order" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    add(folder, "first", None, "CREATE TABLE letters (id uuid)")
    add(folder, "second", "first", "ALTER TABLE letters ADD COLUMN stamp text")

    assert migrate_application(engine, History.at("order:migrations")) == (None, "second")
    assert migrate_application(engine, History.at("order:migrations")) == ("second", "second")
    del sys.modules["order"]


def test_a_history_without_revisions_changes_nothing(engine: Engine, acme: Path) -> None:
    assert migrate_application(engine, History.at("acme_sync:migrations")) == (None, None)
    assert tables(engine) == set()


def test_what_fails_is_named_and_undone(engine: Engine, acme: Path) -> None:
    add(acme, "first", None, "CREATE TABLE letters (id uuid)")
    add(acme, "second", "first", "ALTER TABLE subscribers ADD COLUMN email text")

    with pytest.raises(MigrationFailed) as failed:
        migrate_application(engine, History.at("acme_sync:migrations"))

    assert str(failed.value) == (
        'revision second failed with SQLSTATE 42P01 (relation "subscribers" does not exist),'
        " at: ALTER TABLE subscribers ADD COLUMN email text"
    )
    assert tables(engine) == {"letters", "alembic_version"}


def test_two_heads_are_refused(engine: Engine, acme: Path) -> None:
    add(acme, "one", None, "SELECT 1")
    add(acme, "other", None, "SELECT 1")

    with pytest.raises(InvalidApplication, match="its migrations cannot be used: "):
        migrate_application(engine, History.at("acme_sync:migrations"))


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("acme_none:migrations", "its migrations are in no package acme_none"),
        ("acme_sync:nothing", "its migrations acme_sync:nothing are no folder"),
        ("kratos_sync:testing", "the schema of its migrations cannot be named 'kratos_sync'"),
        ("Acme:migrations", "the schema of its migrations cannot be named 'Acme'"),
    ],
)
def test_a_wrong_place_is_refused(acme: Path, location: str, sentence: str) -> None:
    with pytest.raises(InvalidApplication) as refused:
        History.at(location)

    assert str(refused.value) == sentence
