"""Reading the ledger as it stands at one moment."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from kratos_sync.infrastructure.migrations import require_schema
from kratos_sync.infrastructure.postgres.engine import translate_errors


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Give a connection whose statements all see the same moment and can write nothing.

    Raises SchemaTooOld, LedgerUnavailable, or what else the driver raises.
    """
    with translate_errors():
        require_schema(engine)
        with engine.connect() as connection:
            yield connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
