"""The schema's history, and moving a database along it."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

SCHEMA = "kratos_sync"
# Any number does, as long as nothing else in the database takes advisory locks on it.
MIGRATION_LOCK = 5_720_684_117
LOCK_TIMEOUT = "60s"


class SchemaTooOld(Exception):
    """The database's schema is older than this release needs: run ``kratos-sync migrate``."""


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Bring the schema up to this release's revision; give the revision before and after.

    Safe to run again, and by several processes at once: one does it, the others wait. A schema
    newer than this release is left as it is. Raises sqlalchemy.exc.DBAPIError.
    """
    with engine.connect() as connection, connection.begin():
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        before = current_revision(connection)
        if before is not None and before >= newest_revision():
            return before, before
        # Even with IF NOT EXISTS it wants a privilege that an owner of the schema need not have.
        if connection.execute(text("SELECT to_regnamespace(:s)"), {"s": SCHEMA}).scalar() is None:
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return before, newest_revision()


@cache
def newest_revision() -> str:
    """The revision that this release needs, such as ``0001``."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "this release ships no migration"  # noqa: S101
    return head


def current_revision(connection: Connection) -> str | None:
    """The revision that the database is at; None before the first migration."""
    known = connection.execute(text("SELECT to_regclass(:t)"), {"t": f"{SCHEMA}.alembic_version"})
    if known.scalar_one() is None:
        return None
    version = connection.execute(text(f"SELECT version_num FROM {SCHEMA}.alembic_version"))  # noqa: S608
    return version.scalar_one_or_none()


def require_schema(engine: Engine) -> None:
    """Raise SchemaTooOld, in one line, unless the schema is this release's or a newer one."""
    with engine.connect() as connection:
        revision = current_revision(connection)
    if revision is None or revision < newest_revision():
        raise SchemaTooOld(
            f"The database schema is at {revision or 'no revision'}, and this release needs"
            f" {newest_revision()}: run `kratos-sync migrate` first."
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
