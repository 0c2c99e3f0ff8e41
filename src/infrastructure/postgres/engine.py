"""The pool of connections, and the translation of their errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import psycopg
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.postgres.connection_failures import ConnectFailed
from kratos_sync.infrastructure.postgres.connections import (
    STATEMENT_TIMEOUT,
    SessionConnection,
    connection_arguments,
    open_connection,
    pin_transaction,
)
from kratos_sync.infrastructure.postgres.servers import REPLACED

POOL_TIMEOUT_SECONDS = 10

SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE = "40001", "40P01", "55P03"
CONFLICTS = frozenset({SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE})

IDLE_IN_TRANSACTION = "25P03"
READ_ONLY = "25006"  # what was the primary, until a moment ago
IS_READ_ONLY: Final = "PostgreSQL is read-only: is it a standby, or was it the primary until now?"
NOT_PREPARED: Final = frozenset({"26000", "42P05"})
LOST_STATEMENT: Final = (
    "a prepared statement was lost or is another's: is a PgBouncer older than 1.22, or its"
    " max_prepared_statements 0?"
)
QUERY_CANCELED = "57014"
INSUFFICIENT_RESOURCES = "53"  # the class
LIMIT_EXCEEDED = "53400"  # temp_file_limit: a query that wants too much always will


def connect(
    url: SecretStr, pool_size: int, statement_timeout: timedelta = STATEMENT_TIMEOUT
) -> Engine:
    """Make an engine; it connects when it is first used.

    It notices dead connections before use. Every session has our settings; behind a pooler every
    transaction makes them.
    """
    arguments = connection_arguments(url, statement_timeout)
    engine = create_engine(
        _dialect_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
    )

    @event.listens_for(engine, "do_connect")
    def make(_dialect: object, _record: object, _given: object, by_dialect: dict[str, Any]) -> Any:
        return open_connection(arguments, context=by_dialect.get("context"))

    @event.listens_for(engine, "checkout")
    def check(driver: object, _record: object, _proxy: object) -> None:
        if isinstance(driver, SessionConnection):
            if driver.is_behind:
                raise DisconnectionError(REPLACED)  # the pool connects again
            if driver.read_only is False:
                # SQLAlchemy's way back from read-only: a standby refuses BEGIN READ WRITE.
                driver.read_only = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        driver = driver_of(connection)
        if isinstance(driver, SessionConnection) and driver.is_pooled:
            driver.autocommit = False  # else the settings would end with the statement
            driver.execute(pin_transaction(statement_timeout, driver.info.server_version).encode())

    return engine


def _dialect_url(url: SecretStr) -> URL:
    """The dialect and its options; ``open_connection`` decides where connections lead."""
    try:
        return make_url(url.get_secret_value()).set(drivername="postgresql+psycopg")
    except ValueError:  # several hosts, as libpq writes them
        return URL.create("postgresql+psycopg")


class SessionShared(Exception):
    """Needs a session of its own, and a pooler shares them: DATABASE_DIRECT_URL leads past it."""


def require_own_session(connection: Connection) -> None:
    """Raise SessionShared where a pooler may give each transaction another session."""
    driver = driver_of(connection)
    if isinstance(driver, SessionConnection) and driver.is_pooled:
        raise SessionShared(
            "a pooler shares the sessions of this connection: set DATABASE_DIRECT_URL to the"
            " same database past it"
        )


def driver_of(connection: Connection) -> psycopg.Connection:
    """The driver's connection, for statements that run too often for SQLAlchemy's overhead."""
    return cast("psycopg.Connection", connection.connection.driver_connection)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate errors of SQLAlchemy and psycopg to LedgerUnavailable and ConcurrencyConflict.

    Other errors pass through. Only for our own connections: errors of a consumer's database look
    the same.
    """
    try:
        yield
    except PoolTimeout as error:
        raise LedgerUnavailable("no connection to PostgreSQL was free") from error
    except (DBAPIError, psycopg.Error) as error:
        driver = error.orig if isinstance(error, DBAPIError) else error
        sqlstate = getattr(driver, "sqlstate", None)
        if isinstance(driver, ConnectFailed):
            raise LedgerUnavailable(str(driver)) from error
        if sqlstate == READ_ONLY:
            raise LedgerUnavailable(IS_READ_ONLY) from error
        if sqlstate in NOT_PREPARED:
            raise LedgerUnavailable(f"{LOST_STATEMENT} (SQLSTATE {sqlstate})") from error
        if _is_away(error, sqlstate):
            raise LedgerUnavailable("PostgreSQL cannot be reached") from error
        if sqlstate in CONFLICTS:
            raise ConcurrencyConflict(f"SQLSTATE {sqlstate}") from error
        raise


def _is_away(error: DBAPIError | psycopg.Error, sqlstate: str | None) -> bool:
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if sqlstate is None:
        # No connection, or a lost one. Other errors without a state are values that the driver
        # cannot send.
        return lost or isinstance(error, OperationalError | psycopg.OperationalError)
    # Class 08 is a lost connection, 57P a shutdown, 53 a lack of resources. A connection that was
    # lost because it idled in a transaction is the consumer's failure.
    return sqlstate not in {IDLE_IN_TRANSACTION, LIMIT_EXCEEDED} and (
        lost or sqlstate.startswith(("08", "57P", INSUFFICIENT_RESOURCES))
    )


def sqlstates_of(error: BaseException) -> set[str]:
    """The SQLSTATEs of an error, the errors it groups, its causes and contexts."""
    found, seen, remaining = set(), set(), [error]
    while remaining:
        each = remaining.pop()
        seen.add(id(each))
        driver = each.orig if isinstance(each, DBAPIError) else each
        if isinstance(driver, psycopg.Error) and driver.sqlstate is not None:
            found.add(driver.sqlstate)
        grouped = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        chained = (each.__cause__, each.__context__, *grouped)
        remaining += [other for other in chained if other is not None and id(other) not in seen]
    return found


def readable(time: str) -> str:
    """SQL for a time, or the nearest one that Python has: else the whole row could not be read."""
    return f"greatest('0001-01-01', least('9999-12-31', {time}))"


NOW: Final = text("SELECT clock_timestamp()")


def time_of_day() -> datetime:
    """The time by this process' clock."""
    return datetime.now(UTC)


def how_far_ahead(connection: Connection) -> timedelta:
    """How far the database's clock is ahead of this process'; negative where it is behind."""
    at: datetime = connection.execute(NOW).scalar_one()
    return at - time_of_day()


# A plan for few rows, or without statistics, would read and sort all remaining rows in every step;
# in the order of the index a step reads only what it takes.
BY_THE_INDEX: Final = text("""
    SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)
""")
