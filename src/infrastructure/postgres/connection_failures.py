"""Why PostgreSQL could not be used, in one line without a URL or password.

A server's messages are in its own language, and libpq keeps no SQLSTATE of a refused connection. So
a second attempt is made with libpq's trace of the protocol, which has it.
"""

import os
import re
import select
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, Final, NamedTuple

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.postgres.servers import each_host

DATABASE_ERRORS: Final = (LedgerUnavailable, SQLAlchemyError, psycopg.Error)
"""What using PostgreSQL may raise."""

PROBE_SECONDS: Final = 3.0
MOST_KEPT, MOST_TRACED = 32, 65_536
_NOT_REACHED: Final = {pq.ConnStatus.BAD, pq.ConnStatus.STARTED, pq.ConnStatus.NEEDED}

INSUFFICIENT_PRIVILEGE: Final = "42501"
REFUSALS: Final[Mapping[str, str]] = {
    "28P01": "it refused the user or the password",
    "28000": "it does not let this user in: by its pg_hba.conf, or for want of such a role",
    "3D000": "there is no such database",
    INSUFFICIENT_PRIVILEGE: "this user may not connect to the database",
}
"""What waiting does not change."""
TROUBLES: Final[Mapping[str, str]] = {
    "53300": "it has as many connections as it takes",
    "57P03": "it is starting up, shutting down or recovering",
}
_ANSWER: Final = re.compile(
    rb'^B\t\d+\tErrorResponse\t S "[^"]*"(?: V "[^"]*")? C "([0-9A-Z]{5})"', re.MULTILINE
)
_READY: Final = re.compile(rb"^B\t\d+\tReadyForQuery\t", re.MULTILINE)

_sqlstates: Final[OrderedDict[tuple[str, str], str]] = OrderedDict()


class ConnectFailed(psycopg.OperationalError):
    """No connection could be made; the message says why, and quotes neither server nor URL.

    `sqlstate` is the server's answer, or None. A refusal lasts until a person changes something.
    """

    def __init__(
        self, reason: str, *, sqlstate: str | None = None, is_refusal: bool = False
    ) -> None:
        code = "" if sqlstate is None else f" (SQLSTATE {sqlstate})"
        super().__init__(f"PostgreSQL cannot be used: {reason}{code}")
        self.sqlstate = sqlstate
        self.is_refusal = is_refusal


def is_refusal(error: BaseException) -> bool:
    """Whether PostgreSQL answered, and will not let us in until a person changes something."""
    found = _driver_error(error)
    return isinstance(found, ConnectFailed) and found.is_refusal


def why_unavailable(error: BaseException) -> str:
    """Explain why PostgreSQL could not be used."""
    found = _driver_error(error)
    if isinstance(found, ConnectFailed):
        return str(found)
    if (missing := missing_right(error)) is not None:
        return missing
    return f"PostgreSQL did not answer as it should ({type(found or error).__name__})"


def missing_right(error: BaseException) -> str | None:
    """Say what to run if PostgreSQL refused our role something; None for any other error."""
    found = _driver_error(error)
    if isinstance(found, ConnectFailed) or found is None:
        return None
    if found.sqlstate != INSUFFICIENT_PRIVILEGE:
        return None
    return (
        f"The database role of this process lacks a right ({found.diag.message_primary}): run"
        " `kratos-sync migrate --grants deploy/postgres/grants.sql` as the owner of the schema"
    )


def _driver_error(error: BaseException) -> psycopg.Error | None:
    for each in (error, error.__cause__):
        found = getattr(each, "orig", each)
        if isinstance(found, psycopg.Error):
            return found
    return None


class _Probe(NamedTuple):
    sqlstate: str | None = None
    was_reached: bool = False
    lacks_password: bool = False
    was_ready: bool = False
    """A session began, of another kind than `target_session_attrs` asks for."""
    has_connected: bool = False


def explained(error: psycopg.Error, arguments: Mapping[str, Any]) -> ConnectFailed:
    """Find out why psycopg could not connect with these arguments; may take seconds."""
    # The same message from the same address has the same cause.
    key = (make_conninfo("", **arguments), str(error))
    sqlstate = error.sqlstate or _sqlstates.get(key)
    if sqlstate is None:
        hosts = [make_conninfo("", **each) for each in each_host(arguments)]
        if isinstance(error, psycopg.errors.ConnectionTimeout) and len(hosts) == 1:
            return ConnectFailed("it did not answer in time")
        probes = [_probe(host, PROBE_SECONDS / len(hosts)) for host in hosts]
        sqlstate = next((probe.sqlstate for probe in probes if probe.sqlstate is not None), None)
        if sqlstate is None:
            return _unanswered(error, arguments, probes)
        _sqlstates[key] = sqlstate
        if len(_sqlstates) > MOST_KEPT:
            _sqlstates.popitem(last=False)
    reason = {**REFUSALS, **TROUBLES}.get(sqlstate, "it refused the connection")
    return ConnectFailed(reason, sqlstate=sqlstate, is_refusal=sqlstate in REFUSALS)


def _unanswered(
    error: psycopg.Error, arguments: Mapping[str, Any], probes: list[_Probe]
) -> ConnectFailed:
    if any(probe.lacks_password for probe in probes):
        return ConnectFailed("it wants a password", is_refusal=True)
    hosts = str(arguments.get("host") or "").split(",")
    if any(probe.has_connected for probe in probes):
        reason = "it did not answer, and does by now"
    elif any(probe.was_ready for probe in probes):
        reason = "no host is what target_session_attrs asks for"
    elif any(probe.was_reached for probe in probes):
        reason = "what listens there begins no session: does sslmode fit?"
    elif isinstance(error, psycopg.errors.ConnectionTimeout):
        reason = "it did not answer in time"
    elif any(map(_has_address, hosts)):
        reason = "nothing listens there"
    else:
        reason = "there is no such host"
    return ConnectFailed(reason)


def _has_address(host: str) -> bool:
    if not host or host.startswith(("/", "@")):
        return True
    with suppress(OSError):
        return bool(socket.getaddrinfo(host, None))
    return False


def _probe(conninfo: str, seconds: float) -> _Probe:
    """Connect once more to one host, and read the trace."""
    deadline = time.monotonic() + seconds
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        with _memory() as trace:
            if trace is not None and connection.status != pq.ConnStatus.BAD:
                connection.trace(trace.fileno())
                connection.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
            reached = _poll(connection, deadline)
            connection.untrace()
            traced = b"" if trace is None else os.pread(trace.fileno(), MOST_TRACED, 0)
        if connection.status == pq.ConnStatus.OK:
            return _Probe(has_connected=True)
        answer = _ANSWER.search(traced)
        return _Probe(
            sqlstate=answer and answer[1].decode(),
            was_reached=reached,
            lacks_password=connection.needs_password,
            was_ready=_READY.search(traced) is not None,
        )
    except (psycopg.Error, OSError):  # such as too many open files
        return _Probe()
    finally:
        connection.finish()


def _poll(connection: pq.abc.PGconn, deadline: float) -> bool:
    """Wait until it is connected or fails; return whether anything was reached."""
    reached = False
    while connection.status != pq.ConnStatus.BAD:
        state = connection.connect_poll()
        reached = reached or connection.status not in _NOT_REACHED
        remaining = deadline - time.monotonic()
        if state in {pq.PollingStatus.OK, pq.PollingStatus.FAILED} or remaining < 0:
            break
        waiting = select.poll()  # select() takes no descriptor above 1,023
        is_reading = state == pq.PollingStatus.READING
        waiting.register(connection.socket, select.POLLIN if is_reading else select.POLLOUT)
        waiting.poll(remaining * 1_000)
    return reached


@contextmanager
def _memory() -> Iterator[IO[bytes] | None]:
    """A file in memory, as the trace may have a password; None where that is not possible."""
    if sys.platform != "linux":
        yield None
        return
    with os.fdopen(os.memfd_create("trace"), "rb") as file:
        yield file
