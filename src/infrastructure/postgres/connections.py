"""The one place that connects to PostgreSQL, with the settings that every session needs."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg.abc import AdaptContext
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from kratos_sync.infrastructure.postgres.binary_arrays import register_binary_arrays
from kratos_sync.infrastructure.postgres.connection_failures import ConnectFailed, explained

# Longer than any statement needs; a transaction may set less.
STATEMENT_TIMEOUT = timedelta(seconds=30)
# A transaction that has waited this long for a lock is better retried.
LOCK_TIMEOUT = timedelta(seconds=10)


def milliseconds(duration: timedelta) -> int:
    """A duration as PostgreSQL's settings take it."""
    return round(duration / timedelta(milliseconds=1))


SETTINGS: Final = {
    # A commit is on disk before it is acknowledged, also on a synchronous standby's.
    "synchronous_commit": "on",
    # After waiting for a lock, a statement has to see what was committed meanwhile.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "lock_timeout": str(milliseconds(LOCK_TIMEOUT)),
    "idle_in_transaction_session_timeout": str(milliseconds(2 * STATEMENT_TIMEOUT)),
    # How values are written and read.
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "array_nulls": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    # Else an error of a consumer's statement would look like the loss of the connection.
    "exit_on_error": "off",
    # With a plan from an empty table, or statistics from before a burst, every batch would read the
    # whole table. All our statements have an index.
    "enable_seqscan": "off",
}
_SINCE: Final = {"idle_session_timeout": 140_000, "transaction_timeout": 170_000}
"""Limits to switch off, and the server version that introduced each."""


def options(statement_timeout: timedelta) -> str:
    """The settings as libpq's connection option `options`."""
    return " ".join(
        "-c {}={}".format(name, value.replace(" ", r"\ "))
        for name, value in _with(statement_timeout).items()
    )


def pin_session(statement_timeout: timedelta, server_version: int) -> str:
    """A statement that makes the settings for the session, and returns whether it did.

    It does not if the server process is not `$1`, to which we had connected: then a pooler shares
    sessions, and others would get the settings.
    """
    return f"""
        SELECT CASE WHEN pg_backend_pid() = $1
               THEN {_set_all(statement_timeout, server_version, local=False)} END IS NOT NULL
    """


def pin_transaction(statement_timeout: timedelta, server_version: int) -> str:
    """A statement that makes the settings until the transaction ends."""
    return f"SELECT {_set_all(statement_timeout, server_version, local=True)}"


def _with(statement_timeout: timedelta) -> dict[str, str]:
    return {"statement_timeout": str(milliseconds(statement_timeout)), **SETTINGS}


def _set_all(statement_timeout: timedelta, server_version: int, *, local: bool) -> str:
    new = {name: "0" for name, since in _SINCE.items() if server_version >= since}
    settings = {"client_encoding": "UTF8", **_with(statement_timeout), **new}
    return " || ".join(
        f"set_config('{name}', '{value}', {str(local).lower()})" for name, value in settings.items()
    )


CONNECT_TIMEOUT_SECONDS = 5
"""For one host; several hosts share twice as long."""
# A connection is lost if data stays unacknowledged for so long.
TCP_TIMEOUT = timedelta(seconds=10)
ENCODING: Final = "UTF8"


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments of connections; `address` is for libpq, and has the password."""

    address: Mapping[str, Any] = field(repr=False)
    statement_timeout: timedelta


def connection_arguments(
    url: SecretStr, statement_timeout: timedelta = STATEMENT_TIMEOUT, name: str = "kratos-sync"
) -> Arguments:
    """The arguments for connections to a URL. Raises ValueError if it is invalid."""
    address = parse_database_url(url.get_secret_value())
    hosts = str(address.get("host") or "").count(",") + 1
    own = [address["options"]] if address.get("options") else []
    seconds = min(CONNECT_TIMEOUT_SECONDS, 2 * CONNECT_TIMEOUT_SECONDS // hosts)
    address |= {
        "connect_timeout": max(2, seconds),  # libpq takes no less
        "application_name": name,
        "client_encoding": ENCODING,
        "options": " ".join([*own, options(statement_timeout)]),
        "tcp_user_timeout": milliseconds(TCP_TIMEOUT),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
    return Arguments(address, statement_timeout)


def parse_database_url(url: str) -> dict[str, Any]:
    """Read a URL as libpq or SQLAlchemy does: they write several hosts in different ways.

    Raises ValueError.
    """
    address: dict[str, Any] | None = None
    try:
        if len(parse_qs(urlsplit(url).query).get("host", ())) < 2:  # noqa: PLR2004  # one, or none
            address = {key: each for key, each in conninfo_to_dict(url).items() if each is not None}
    except (psycopg.Error, ValueError):
        pass  # SQLAlchemy may accept it
    if address is None:
        dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
        given = make_url(url).set(drivername="postgresql+psycopg")
        address = cast("dict[str, Any]", dialect.create_connect_args(given)[1])  # type: ignore[no-untyped-call]
    ports = str(address.get("port", "")).split(",")
    hosts = str(address.get("host", "")).split(",")
    # libpq reads what follows an @ in the password as a host.
    wrong = [host for host in hosts if "@" in host[1:] and not host.startswith("/")]
    if wrong or any(port and not port.isdecimal() for port in ports):
        raise ValueError("is no URL")
    return address


class SessionConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that knows whether a pooler shares its session."""

    is_pooled = False
    """Whether each transaction may get another session, so that each has to make the settings."""


def open_connection(
    arguments: Arguments, *, autocommit: bool = False, context: AdaptContext | None = None
) -> SessionConnection:
    """Connect, and make the session's settings. Raises psycopg.Error; ConnectFailed says why."""
    try:
        connection = SessionConnection.connect(
            **arguments.address, autocommit=True, context=context
        )
    except psycopg.OperationalError as error:
        raise explained(error, arguments.address) from error
    try:
        pin = _set_up(connection, arguments)
        cursor = psycopg.RawCursor(connection)
        row = cursor.execute(pin, [connection.info.backend_pid]).fetchone()
        connection.is_pooled = row != (True,)
        if connection.is_pooled:
            # Sent with BEGIN: later a transaction accepts no other isolation level.
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.deferrable = False
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


async def open_loop_connection(arguments: Arguments) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """Connect likewise from an event loop, in autocommit; behind a pooler, without the settings."""
    try:
        connection = await psycopg.AsyncConnection.connect(**arguments.address, autocommit=True)
    except psycopg.OperationalError as error:
        raise await asyncio.to_thread(explained, error, arguments.address) from error
    try:
        pin = _set_up(connection, arguments)
        cursor = psycopg.AsyncRawCursor(connection)
        await cursor.execute(pin, [connection.info.backend_pid])
    except BaseException:
        await connection.close()
        raise
    return connection


def _set_up(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], arguments: Arguments
) -> bytes:
    """Check the encoding; return the statement that makes the session's settings."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != ENCODING:
        raise ConnectFailed(
            f"the database's encoding is {encoding or 'unknown'}, and has to be {ENCODING}",
            is_refusal=True,
        )
    register_binary_arrays(connection.adapters)
    return pin_session(arguments.statement_timeout, connection.info.server_version).encode()
