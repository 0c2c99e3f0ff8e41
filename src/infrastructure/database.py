"""The connection to PostgreSQL, and its errors in the application's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import psycopg
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from application.ports.event_bus import LedgerUnavailable
from application.ports.unit_of_work import ConcurrencyConflict

CONNECT_TIMEOUT_SECONDS = 5
POOL_TIMEOUT_SECONDS = 10
# Longer than any statement of ours needs; a transaction may set a tighter one of its own.
STATEMENT_TIMEOUT = timedelta(seconds=30)
# A transaction that waits for a lock this long is better begun anew.
LOCK_TIMEOUT = timedelta(seconds=10)

SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE = "40001", "40P01", "55P03"
CONFLICTS = frozenset({SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE})
# What was sent and not acknowledged for so long was sent to nobody.
TCP_TIMEOUT = timedelta(seconds=10)

IDLE_IN_TRANSACTION = "25P03"
READ_ONLY = "25006"  # what was the primary, until a moment ago
QUERY_CANCELED = "57014"
INSUFFICIENT_RESOURCES = "53"  # the class
LIMIT_EXCEEDED = "53400"  # temp_file_limit: a query that wants too much always will


def connect(
    url: SecretStr, pool_size: int, statement_timeout: timedelta = STATEMENT_TIMEOUT
) -> Engine:
    """Make an engine; it connects when it is first used.

    Connections that have died are noticed before use, and every wait on them has a timeout.
    """
    return create_engine(
        _address(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=_limits(statement_timeout),
    )


def driver_arguments(url: SecretStr, statement_timeout: timedelta) -> dict[str, Any]:
    """Give what `psycopg.connect` needs for the connections that `connect` makes."""
    dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
    _, address = dialect.create_connect_args(_address(url))  # type: ignore[no-untyped-call]
    return {**address, **_limits(statement_timeout)}


def _address(url: SecretStr) -> URL:
    return make_url(url.get_secret_value()).set(drivername="postgresql+psycopg")


def _limits(statement_timeout: timedelta) -> dict[str, Any]:
    timeouts = {
        "statement_timeout": statement_timeout,
        "lock_timeout": LOCK_TIMEOUT,
        "idle_in_transaction_session_timeout": 2 * STATEMENT_TIMEOUT,
    }
    # Without sequential scans: a plan from when a table was empty, or statistics from before a
    # burst, would have every batch read the whole of it. What we ask has an index.
    options = [f"-c {name}={milliseconds(timeout)}" for name, timeout in timeouts.items()]
    # Whatever the database's own default: who waited for a lock has to see what it waited for.
    options.append(r"-c default_transaction_isolation=read\ committed")
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": "kratos-sync",
        "options": " ".join([*options, "-c timezone=UTC", "-c enable_seqscan=off"]),
        "tcp_user_timeout": milliseconds(TCP_TIMEOUT),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }


def driver_of(connection: Connection) -> psycopg.Connection:
    """Give the driver's connection: for statements that run too often for what a layer costs."""
    return cast("psycopg.Connection", connection.connection.driver_connection)


def milliseconds(duration: timedelta) -> int:
    """Give a duration as PostgreSQL's settings take it."""
    return round(duration / timedelta(milliseconds=1))


@contextmanager
def errors_in_our_words() -> Iterator[None]:
    """Translate what the driver raises: LedgerUnavailable, ConcurrencyConflict, or as it is.

    It may come through SQLAlchemy or straight from psycopg. Only for what runs on connections of
    our own: a consumer's database has the same words.
    """
    try:
        yield
    except PoolTimeout as error:
        raise LedgerUnavailable("no connection to PostgreSQL was free") from error
    except (DBAPIError, psycopg.Error) as error:
        driver = error.orig if isinstance(error, DBAPIError) else error
        sqlstate = getattr(driver, "sqlstate", None)
        if _is_away(error, sqlstate):
            raise LedgerUnavailable("PostgreSQL cannot be reached") from error
        if sqlstate in CONFLICTS:
            raise ConcurrencyConflict(f"SQLSTATE {sqlstate}") from error
        raise


def _is_away(error: DBAPIError | psycopg.Error, sqlstate: str | None) -> bool:
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if sqlstate is None:
        # A connection that never was, or is no more; what else has no state is a value that the
        # driver cannot send, and no better next time.
        return lost or isinstance(error, OperationalError | psycopg.OperationalError)
    # Class 08 is a lost connection, 57P a shutdown, 53 a lack of resources. A connection lost to
    # idling in a transaction is the fault of whoever idled.
    return sqlstate not in {IDLE_IN_TRANSACTION, LIMIT_EXCEEDED} and (
        lost or sqlstate.startswith(("08", "57P", INSUFFICIENT_RESOURCES, READ_ONLY))
    )


def sqlstates_of(error: BaseException) -> set[str]:
    """Give what servers said in an error, and in those that it was raised from or amid."""
    found, seen, left = set(), set(), [error]
    while left:
        each = left.pop()
        seen.add(id(each))
        driver = each.orig if isinstance(each, DBAPIError) else each
        if isinstance(driver, psycopg.Error) and driver.sqlstate is not None:
            found.add(driver.sqlstate)
        chained = (each.__cause__, each.__context__)
        left += [other for other in chained if other is not None and id(other) not in seen]
    return found
