"""The one place that connects to PostgreSQL, with the settings that every session needs."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg.abc import AdaptContext
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from kratos_sync.infrastructure import keepalive
from kratos_sync.infrastructure.postgres.binary_arrays import register_binary_arrays
from kratos_sync.infrastructure.postgres.connection_failures import ConnectFailed, explained
from kratos_sync.infrastructure.postgres.servers import (
    REPLACED,
    Server,
    best_first,
    is_behind,
    server_of,
    server_of_loop,
)

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
    "idle_session_timeout": "0",
    # A statement of a process that was killed ends, and frees its locks, not after its timeout.
    "client_connection_check_interval": "1000",
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
OF_THE_SERVER: Final = {
    # It too has to notice that our host has gone: else the locks of a batch are kept for a minute,
    # and those of a session for hours. And before a broker gives the batch to another worker.
    "tcp_keepalives_idle": str(keepalive.IDLE_SECONDS),
    "tcp_keepalives_interval": str(keepalive.INTERVAL_SECONDS),
    "tcp_keepalives_count": str(keepalive.PROBES),
    "tcp_user_timeout": str(milliseconds(keepalive.UNACKNOWLEDGED)),
}
_SINCE: Final = {"transaction_timeout": 170_000}
"""Limits to switch off, and the server version that introduced each."""


# To what the session began with: the role, too, may have been given then.
RESET: Final = b"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL;"


def options(statement_timeout: timedelta) -> str:
    """The settings as libpq's connection option `options`."""
    return " ".join(
        "-c {}={}".format(name, value.replace(" ", r"\ "))
        for name, value in _with(statement_timeout).items()
    )


def pin_session(statement_timeout: timedelta, server_version: int, backend_pid: int) -> str:
    """A statement that makes the settings for the session, and returns whether it did.

    It does not if the server process is another than that to which we had connected: then a pooler
    shares sessions, and others would get the settings.
    """
    return f"""
        SELECT CASE WHEN pg_backend_pid() = {backend_pid}
               THEN {_set_all(statement_timeout, server_version)} END IS NOT NULL
    """


def pin_transaction(statement_timeout: timedelta, server_version: int) -> str:
    """A statement that makes the settings until the transaction ends."""
    return f"SELECT {_set_all(statement_timeout, server_version, is_local=True)}"


def _with(statement_timeout: timedelta) -> dict[str, str]:
    return {"statement_timeout": str(milliseconds(statement_timeout)), **SETTINGS}


def _set_all(statement_timeout: timedelta, server_version: int, *, is_local: bool = False) -> str:
    new = {name: "0" for name, since in _SINCE.items() if server_version >= since}
    settings = {"client_encoding": "UTF8", **_with(statement_timeout), **new}
    if not is_local:  # behind a pooler the server's client is the pooler
        settings |= OF_THE_SERVER
    return " || ".join(
        f"set_config('{name}', '{value}', {str(is_local).lower()})"
        for name, value in settings.items()
    )


CONNECT_TIMEOUT_SECONDS: Final = 5
EACH_HOST_SECONDS: Final = 3
"""For each of several hosts, which are tried at the same time; libpq takes no less than 2."""
ENCODING: Final = "UTF8"
LEAST_VERSION: Final = 15_00_00
"""The oldest PostgreSQL that is tested."""


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
    own = [address["options"]] if address.get("options") else []
    several = "," in str(address.get("host") or "")
    address |= {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS if not several else EACH_HOST_SECONDS,
        "application_name": name,
        "client_encoding": ENCODING,
        "options": " ".join([*own, options(statement_timeout)]),
        "tcp_user_timeout": milliseconds(keepalive.UNACKNOWLEDGED),
        "keepalives_idle": keepalive.IDLE_SECONDS,
        "keepalives_interval": keepalive.INTERVAL_SECONDS,
        "keepalives_count": keepalive.PROBES,
    }
    return Arguments(address, statement_timeout)


WORDS: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": (
        "any",
        "read-write",
        "read-only",
        "primary",
        "standby",
        "prefer-standby",
    ),
    "gssencmode": ("disable", "prefer", "require"),
    "channel_binding": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
}
"""What libpq takes for a parameter; it refuses another only when it connects, as any failure."""


class BadDatabaseUrl(ValueError):
    """What is wrong with a URL, in words that hold nothing of it."""


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
    if any(port and not 0 < int(port) < 1 << 16 for port in ports):
        raise BadDatabaseUrl("has a port that is not between 1 and 65535")
    if len(ports) not in {1, len(hosts)}:
        raise BadDatabaseUrl("has neither one port nor one for each host")
    try:
        make_conninfo("", **address)
    except psycopg.Error:
        raise BadDatabaseUrl("has a parameter that libpq does not know") from None
    for name, words in WORDS.items():
        if address.get(name, words[0]) not in words:
            raise BadDatabaseUrl(f"has a {name} that is none of {', '.join(words)}")
    return address


class SessionConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that knows its server, and whether a pooler shares its session."""

    is_pooled = False
    """Whether each transaction may get another session, so that each has to make the settings."""
    server: Server | None = None
    """Unknown where it is not a primary's, and behind a pooler, which may change it."""
    pin: bytes = b""
    """The statement that makes the session's settings."""

    @property
    def is_behind(self) -> bool:
        """Whether another primary has replaced the server."""
        return is_behind(self.server)

    def make_settings(self) -> bool:
        """Make the session's settings; False behind a pooler, where none are made."""
        return self.execute(self.pin).fetchone() == (True,)

    def restore(self) -> None:
        """Undo what others have set for the session. No transaction may be open."""
        if self.is_pooled:
            return
        self.autocommit = True
        self.execute(RESET + self.pin, prepare=False)  # several statements
        self.autocommit = False


class LoopSession(psycopg.AsyncConnection[tuple[Any, ...]]):
    """The same for an event loop."""

    server: Server | None = None

    @property
    def is_behind(self) -> bool:
        """Whether another primary has replaced the server."""
        return is_behind(self.server)


def open_connection(
    arguments: Arguments, *, autocommit: bool = False, context: AdaptContext | None = None
) -> SessionConnection:
    """Connect, and make the session's settings. Raises psycopg.Error; ConnectFailed says why."""
    *primaries, given = best_first(arguments.address)
    for address in primaries:
        with suppress(psycopg.OperationalError):
            connection = SessionConnection.connect(**address, autocommit=True, context=context)
            _make_settings(connection, arguments)
            if not connection.is_behind:
                connection.autocommit = autocommit
                return connection
            connection.close()
    try:
        connection = SessionConnection.connect(**given, autocommit=True, context=context)
    except psycopg.OperationalError as error:
        raise explained(error, given) from error
    _make_settings(connection, arguments)
    if connection.is_behind:
        connection.close()
        raise ConnectFailed(REPLACED)
    connection.autocommit = autocommit
    return connection


def _make_settings(connection: SessionConnection, arguments: Arguments) -> None:
    try:
        connection.pin = _check(connection, arguments)
        connection.is_pooled = not connection.make_settings()
        if connection.is_pooled:
            # Sent with BEGIN: later a transaction accepts no other isolation level.
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.deferrable = False
        else:
            connection.server = server_of(connection)
    except BaseException:
        connection.close()
        raise


async def open_loop_connection(arguments: Arguments) -> LoopSession:
    """Connect likewise from an event loop, in autocommit; behind a pooler, without the settings."""
    *primaries, given = await asyncio.to_thread(best_first, arguments.address)
    for address in primaries:
        with suppress(psycopg.OperationalError):
            connection = await LoopSession.connect(**address, autocommit=True)
            await _make_loop_settings(connection, arguments)
            if not connection.is_behind:
                return connection
            await connection.close()
    try:
        connection = await LoopSession.connect(**given, autocommit=True)
    except psycopg.OperationalError as error:
        raise await asyncio.to_thread(explained, error, given) from error
    await _make_loop_settings(connection, arguments)
    if connection.is_behind:
        await connection.close()
        raise ConnectFailed(REPLACED)
    return connection


async def _make_loop_settings(connection: LoopSession, arguments: Arguments) -> None:
    try:
        cursor = await connection.execute(_check(connection, arguments))
        if await cursor.fetchone() == (True,):
            connection.server = await server_of_loop(connection)
    except BaseException:
        await connection.close()
        raise


def _check(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], arguments: Arguments
) -> bytes:
    """Check version and encoding; return the statement that makes the session's settings."""
    if connection.info.server_version < LEAST_VERSION:
        found = connection.info.parameter_status("server_version") or "unknown"
        least = LEAST_VERSION // 10_000
        raise ConnectFailed(
            f"its version is {found}, and {least} is the oldest that will do", is_refusal=True
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != ENCODING:
        raise ConnectFailed(
            f"the database's encoding is {encoding or 'unknown'}, and has to be {ENCODING}",
            is_refusal=True,
        )
    register_binary_arrays(connection.adapters)
    timeout, server = arguments.statement_timeout, connection.info
    return pin_session(timeout, server.server_version, server.backend_pid).encode()
