"""Reading the ledger as it is at one moment."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import datetime
from time import monotonic
from typing import Final

from sqlalchemy import Connection, Engine, text

from kratos_sync.infrastructure.migrations import require_schema_on
from kratos_sync.infrastructure.postgres.engine import translate_errors

SCHEMA_SECONDS: Final = 5.0
"""A connection is not asked for the schema's revision again so soon."""
_ASKED_AT: Final = "kratos_sync.schema_asked_at"


class _Moment(ExitStack):
    """The connections that read at one moment, by their engine."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[Engine, Connection] = {}


_moment: Final[ContextVar[_Moment | None]] = ContextVar("moment", default=None)


@contextmanager
def one_moment() -> Iterator[None]:
    """Let all snapshots within, in this thread, be of the moment of the first.

    They share a connection and a transaction: one that fails lets those after it fail, too.
    """
    with _Moment() as moment:
        token = _moment.set(moment)
        try:
            yield
        finally:
            _moment.reset(token)


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose statements all see the same moment, and cannot write.

    Raises SchemaTooOld, SchemaTooNew, LedgerUnavailable, or sqlalchemy.exc.DBAPIError.
    """
    moment = _moment.get()
    with translate_errors(), _Moment() as own:
        shared = own if moment is None else moment
        if engine not in shared.readers:
            shared.readers[engine] = _reader(engine, shared)
        yield shared.readers[engine]


def _reader(engine: Engine, until: ExitStack) -> Connection:
    reader = until.enter_context(engine.connect()).execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    now = monotonic()
    if now - reader.info.get(_ASKED_AT, -SCHEMA_SECONDS) >= SCHEMA_SECONDS:
        require_schema_on(reader)
        reader.info[_ASKED_AT] = now
    return reader


def time_of_ledger(engine: Engine) -> datetime:
    """The time by the database's clock. Raises as `snapshot` does."""
    with snapshot(engine) as connection:
        now: datetime = connection.execute(text("SELECT now()")).scalar_one()
        return now
