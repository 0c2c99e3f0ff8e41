"""Migrations of the schema, which do not stop writers."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.errors import InvalidSchemaName, UndefinedTable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from kratos_sync.application.application import InvalidApplication
from kratos_sync.infrastructure.postgres.connection_failures import missing_right
from kratos_sync.infrastructure.postgres.engine import (
    DEADLOCK,
    LOCK_NOT_AVAILABLE,
    require_own_session,
    translate_errors,
)

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import Script

IS_VALID: Final = text("""
    SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('kratos_sync.' || :name)
""")


@dataclass(frozen=True, slots=True)
class ConcurrentIndex:
    """An index built without blocking writers; ``on`` is what follows ON: ``events (name)``.

    A revision lists those that it needs on existing, possibly big tables as ``INDEXES``: they are
    built before its own transaction.
    """

    name: str
    on: str

    def build(self, connection: Connection, seconds: float) -> None:
        """Build the index unless it exists; drop and rebuild one that an interrupted build left.

        The connection is in autocommit and used for this alone. Waits up to so many seconds for
        transactions that began before, such as a dump; no other transaction waits. Raises
        sqlalchemy.exc.DBAPIError.
        """
        for setting, value in {
            "statement_timeout": "0",
            "lock_timeout": f"{seconds:.0f}s",
        }.items():
            connection.execute(text("SELECT set_config(:s, :v, false)"), {"s": setting, "v": value})
        is_valid = connection.execute(IS_VALID, {"name": self.name}).scalar_one_or_none()
        if is_valid is False:
            connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS kratos_sync.{self.name}"))
        if not is_valid:
            build = f"CREATE INDEX CONCURRENTLY {self.name} ON kratos_sync.{self.on}"
            connection.execute(text(build))


SCHEMA: Final = "kratos_sync"
# Any number does, as long as nothing else in the database takes advisory locks on it.
MIGRATION_LOCK: Final = 5_720_684_117
LOCK_TIMEOUT: Final = "300ms"
"""Writers queue behind a lock request of ours for no longer than this."""
AUTOVACUUM_TIMEOUT: Final = "5s"
"""For a lock that conflicts with autovacuum only, which is cancelled after a second."""
MOST_CHARACTERS: Final = 300
RETRY_SECONDS: Final = 1.0
GIVE_UP_SECONDS: Final = 600.0
"""How long a migration waits in all, for a lock or for another migration."""
VERSIONS: Final = (Path(__file__).parent / "versions",)
"""Where the revisions are."""


@dataclass(frozen=True, slots=True)
class History:
    """Revisions in some folders, whose tables and version live in one schema."""

    schema: str
    folders: tuple[Path, ...]

    @classmethod
    def at(cls, location: str) -> "History":
        """The history at ``package:folder``, in a schema named like the package.

        Raises InvalidApplication.
        """
        package, _, folder = location.partition(":")
        schema = package.rpartition(".")[2]
        if not re.fullmatch("[a-z_][a-z0-9_]{0,62}", schema) or schema in RESERVED_SCHEMAS:
            raise InvalidApplication(f"the schema of its migrations cannot be named {schema!r}")
        try:
            path = Path(str(files(package))) / folder
        except ModuleNotFoundError as error:
            raise InvalidApplication(f"its migrations are in no package {package}") from error
        if not path.is_dir():
            raise InvalidApplication(f"its migrations {location} are no folder")
        return cls(schema, (path,))


RESERVED_SCHEMAS: Final = frozenset({SCHEMA, "public", "information_schema", "pg_catalog"})

# Only ours: somebody may have put a table of their own there.
TABLES: Final = text("""
    SELECT string_agg(format('%I.%I', CAST(:schema AS text), relname), ', ' ORDER BY relname)
    FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(:schema))
      AND relkind IN ('r', 'p')
      AND relowner = (SELECT relowner FROM pg_class
                      WHERE oid = to_regclass(quote_ident(:schema) || '.alembic_version'))
""")
# Of the database's name too: a copy of it under another name does not share its queues.
DEPLOYMENT_ID: Final = text("""
    SELECT left(encode(sha256(convert_to(
               coalesce((SELECT id::text FROM kratos_sync.deployment), '')
               || current_database(), 'UTF8')), 'hex'), 12)
""")


REVISION: Final = text("SELECT version_num FROM kratos_sync.alembic_version")
OLDEST_RELEASE: Final = text("SELECT oldest_release FROM kratos_sync.alembic_version")
SET_OLDEST_RELEASE: Final = text("UPDATE kratos_sync.alembic_version SET oldest_release = :oldest")


class SchemaTooOld(Exception):
    """The database's schema is older than this release needs: run ``kratos-sync migrate``."""


class SchemaTooNew(Exception):
    """A later release removed from the schema what this one uses: run a newer release."""


class MigrationFailed(Exception):
    """PostgreSQL refused a statement of a revision, of which nothing was changed, or of grants."""


class MigrationBlocked(Exception):
    """Another transaction held a lock for too long; nothing of that step was changed."""


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Bring the schema up to this release's revision; give the revision before and after.

    Each revision is a transaction of its own; its indexes are built before it. A migration that was
    killed goes on from there when run again. Of several processes one migrates and the others wait.
    A schema newer than this release is left as it is. A revision that removes what older releases
    use names the oldest release that may run on it, by the newest revision which that one knows:
    ``OLDEST_RELEASE = "0007"``.

    Raises SchemaTooNew, MigrationBlocked, MigrationFailed, SessionShared or
    sqlalchemy.exc.DBAPIError.
    """
    with _alone(engine):
        with engine.connect() as connection:
            before = current_revision(connection)
            _require_compatible(connection, before)
        own = History(SCHEMA, VERSIONS)
        for script in _pending(own, before):
            for index in getattr(script.module, "INDEXES", ()):
                _retried(partial(_build, engine, index), script.revision)
            oldest = getattr(script.module, "OLDEST_RELEASE", None)
            _retried(partial(_apply, engine, own, script.revision, oldest), script.revision)
    return before, max(before or "", newest_revision())


def migrate_application(engine: Engine, history: History) -> tuple[str | None, str | None]:
    """Bring an application's schema to its newest revision; give the revision before and after.

    As `migrate`, but that revisions have any ids: their order is that of `down_revision`. Raises
    also InvalidApplication for a history that Alembic cannot read.
    """
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    with _alone(engine):
        with engine.connect() as connection:
            before = _revision_of(connection, history.schema)
        try:
            directory = ScriptDirectory.from_config(_config(history))
            newest = directory.get_current_head()
            pending = list(directory.iterate_revisions(newest or (), before or "base"))
        except CommandError as error:
            raise InvalidApplication(f"its migrations cannot be used: {error}") from error
        for script in reversed(pending):
            _retried(partial(_apply, engine, history, script.revision), script.revision)
    return before, newest


def run_grants(engine: Engine, script: str, name: str) -> None:
    """Run SQL of any number of statements, as psql does; ``name`` is for the error.

    Raises MigrationFailed or sqlalchemy.exc.DBAPIError.
    """
    # Several statements at once take a query without parameters.
    modes = {"isolation_level": "AUTOCOMMIT", "no_parameters": True}
    with engine.execution_options(**modes).connect() as connection:
        try:
            connection.exec_driver_sql(script)
        except DBAPIError as error:
            cause = error.orig
            if not isinstance(cause, psycopg.Error) or cause.sqlstate is None:
                raise
            raise MigrationFailed(f"{name} failed with {_sqlstate_of(cause, script)}") from error


@cache
def newest_revision() -> str:
    """The revision that this release needs, such as ``0001``."""
    # By the files' names: what only compares revisions, as every command does, needs no Alembic.
    return max(path.name[:4] for folder in VERSIONS for path in folder.glob("[0-9]*.py"))


def current_revision(connection: Connection) -> str | None:
    """The revision that the database is at; None before the first migration."""
    return _revision_of(connection, SCHEMA)


def _revision_of(connection: Connection, schema: str) -> str | None:
    known = connection.execute(text("SELECT to_regclass(:t)"), {"t": f'"{schema}".alembic_version'})
    if known.scalar_one() is None:
        return None
    version = connection.execute(text(f'SELECT version_num FROM "{schema}".alembic_version'))  # noqa: S608
    return version.scalar_one_or_none()


def deployment_id(engine: Engine) -> str:
    """An id of this database, stable for as long as it keeps its name. Raises LedgerUnavailable."""
    with translate_errors(), engine.connect() as connection:
        return str(connection.execute(DEPLOYMENT_ID).scalar_one())


def require_schema(engine: Engine) -> None:
    """Raise SchemaTooOld or SchemaTooNew unless this release can run on the schema."""
    with engine.connect() as connection:
        require_schema_on(connection)


def why_unusable(engine: Engine, error: Exception) -> str | None:
    """Say what to run if the schema, or what our role may do in it, is the reason of an error."""
    if isinstance(error, DBAPIError | psycopg.Error):
        try:
            require_schema(engine)
        except (SchemaTooOld, SchemaTooNew) as reason:
            return str(reason)
        except DBAPIError:  # the first error says why
            pass
        missing = missing_right(error)
        return missing and f"{missing}."
    return str(error) if isinstance(error, SchemaTooOld | SchemaTooNew) else None


def require_schema_on(connection: Connection) -> None:
    """The same by one statement of a connection; if it raises, that can be used no further."""
    try:
        revision: str | None = connection.execute(REVISION).scalar_one_or_none()
    except ProgrammingError as error:
        if not isinstance(error.orig, UndefinedTable | InvalidSchemaName):
            raise
        revision = None
    if revision is None or revision < newest_revision():
        raise SchemaTooOld(
            f"The database schema is at {revision or 'no revision'}, and this release needs"
            f" {newest_revision()}: run `kratos-sync migrate` first."
        )
    _require_compatible(connection, revision)


def _require_compatible(connection: Connection, revision: str | None) -> None:
    if revision is None or revision <= newest_revision():
        return
    oldest = connection.execute(OLDEST_RELEASE).scalar_one()
    if newest_revision() < oldest:
        raise SchemaTooNew(
            f"The database schema is at {revision}, which needs a release of {oldest} or newer, and"
            f" this one is of {newest_revision()}: run a newer release."
        )


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Keep other migrations out by an advisory lock.

    A concurrent index build waits for every snapshot, so no transaction here keeps one.
    """
    attempt = text("SELECT pg_try_advisory_xact_lock(:key)")
    deadline = time.monotonic() + GIVE_UP_SECONDS
    with engine.connect() as connection:
        require_own_session(connection)
        while not connection.execute(attempt, {"key": MIGRATION_LOCK}).scalar_one():
            connection.rollback()
            if time.monotonic() > deadline:
                raise MigrationBlocked("another migration has been running for too long")
            time.sleep(RETRY_SECONDS / 10)
        # A statement without a snapshot also replaces the portal of the one before, which had one.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield


def _pending(own: History, before: str | None) -> "list[Script]":
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config(own)).walk_revisions()
    pending = [each for each in scripts if (before or "") < each.revision <= newest_revision()]
    return sorted(pending, key=lambda each: each.revision)


def _retried(step: Callable[[], None], revision: str) -> None:
    """Take a step, again while a lock is not available, up to GIVE_UP_SECONDS."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            return step()
        except DBAPIError as error:
            cause = error.orig
            if not isinstance(cause, psycopg.Error) or cause.sqlstate is None:
                raise
            if cause.sqlstate not in {LOCK_NOT_AVAILABLE, DEADLOCK}:
                raise MigrationFailed(
                    f"revision {revision} failed with {_sqlstate_of(cause, error.statement)}"
                ) from error
            if time.monotonic() > deadline:
                raise MigrationBlocked(
                    f"a transaction (a dump, say) holds what revision {revision} changes: run"
                    " `kratos-sync migrate` again when it has ended"
                ) from error
            time.sleep(RETRY_SECONDS)


def _sqlstate_of(error: psycopg.Error, statement: str | None) -> str:
    where = _where(statement, error)
    return f"SQLSTATE {error.sqlstate} ({error.diag.message_primary}), at: {where}"


def _where(statement: str | None, error: psycopg.Error) -> str:
    """The line of a statement that an error is about, or its beginning."""
    text, position = statement or "", int(error.diag.statement_position or 1) - 1
    begin = text.rfind("\n", 0, position) + 1
    return " ".join(text[begin:].strip().split("\n")[0].split())[:MOST_CHARACTERS]


def _build(engine: Engine, index: ConcurrentIndex) -> None:
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        # The build changes settings of the session, which must not return to the pool.
        connection.detach()
        index.build(connection, GIVE_UP_SECONDS)


def _apply(engine: Engine, history: History, revision: str, oldest: str | None = None) -> None:
    from alembic import command

    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{AUTOVACUUM_TIMEOUT}'"))
        if tables := connection.execute(TABLES, {"schema": history.schema}).scalar_one():
            # Conflicts with neither writers nor a dump, and keeps autovacuum away until the end.
            connection.execute(text(f"LOCK TABLE {tables} IN SHARE UPDATE EXCLUSIVE MODE"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        # It would refuse our functions for the names of their variables.
        connection.execute(text("SET LOCAL plpgsql.extra_errors = 'none'"))
        # IF NOT EXISTS would need a privilege that an owner of the schema may not have.
        exists = text("SELECT to_regnamespace(quote_ident(:s))")
        if connection.execute(exists, {"s": history.schema}).scalar() is None:
            connection.execute(text(f'CREATE SCHEMA "{history.schema}"'))
        if history.schema != SCHEMA:
            connection.execute(text(f'SET LOCAL search_path = "{history.schema}", public'))
        config = _config(history)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        if oldest is not None:
            connection.execute(SET_OLDEST_RELEASE, {"oldest": oldest})


def _config(history: History) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", _option(Path(__file__).parent))
    config.set_main_option("version_locations", os.pathsep.join(map(_option, history.folders)))
    config.set_main_option("path_separator", "os")
    config.attributes["schema"] = history.schema
    return config


def _option(path: Path) -> str:
    return str(path).replace("%", "%%")
