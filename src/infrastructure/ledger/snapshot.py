"""Reading the ledger as it is at one moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from kratos_sync.infrastructure.migrations import require_schema_on
from kratos_sync.infrastructure.postgres.engine import translate_errors


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose statements all see the same moment, and cannot write.

    Raises SchemaTooOld, SchemaTooNew, LedgerUnavailable, or sqlalchemy.exc.DBAPIError.
    """
    with translate_errors(), engine.connect() as connection:
        reading = connection.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        require_schema_on(reading)
        yield reading


def time_of_ledger(engine: Engine) -> datetime:
    """The time by the database's clock. Raises as `snapshot` does."""
    with snapshot(engine) as connection:
        now: datetime = connection.execute(text("SELECT now()")).scalar_one()
        return now
