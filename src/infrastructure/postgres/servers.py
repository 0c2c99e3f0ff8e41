"""Which of several servers is the primary, so that one that was replaced is not used again.

A standby that is promoted begins a new timeline. A primary that was cut off meanwhile may still
accept writes: they are on the older timeline, and are lost when it becomes a standby.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple

import psycopg
import structlog
from psycopg.conninfo import make_conninfo

LOOK_SECONDS: Final = 10.0
"""How long the hosts that answered as primaries are remembered."""
REPLACED: Final = (
    "it is an old primary: another server has been promoted in its place, or it was restored"
    " (restart this process if it is to be used)"
)
# One that is no primary has no timeline of its own. Managed services may not offer the functions.
WHICH_SERVER: Final = """
    SELECT (SELECT system_identifier::text FROM pg_control_system()),
           ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
    WHERE NOT pg_is_in_recovery()
"""

log = structlog.get_logger()


class Server(NamedTuple):
    """A primary: the cluster that it belongs to, and the timeline that it writes."""

    system_identifier: str
    timeline: int


_newest: Final[dict[str, int]] = {}
"""The newest timeline of each cluster that this process has seen."""
_looked: Final[dict[str, tuple[float, list[Mapping[str, Any]]]]] = {}
"""When the hosts of an address were last looked at, and those that were primaries then."""
_looking: Final = threading.Lock()


def is_behind(server: Server | None) -> bool:
    """Whether this process has seen a newer primary of the same cluster."""
    return server is not None and server.timeline < _newest.get(server.system_identifier, 0)


def server_of(connection: psycopg.Connection[Any]) -> Server | None:
    """The server of a connection in autocommit; None if it is no primary, or does not say."""
    try:
        row = connection.execute(WHICH_SERVER).fetchone()
    except psycopg.Error as error:
        _raise_if_lost(error)
        return None
    return _noted(row)


async def server_of_loop(connection: psycopg.AsyncConnection[Any]) -> Server | None:
    """The same on an event loop."""
    try:
        row = await (await connection.execute(WHICH_SERVER)).fetchone()
    except psycopg.Error as error:
        _raise_if_lost(error)
        return None
    return _noted(row)


def _raise_if_lost(error: psycopg.Error) -> None:
    if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
        raise error


def _noted(row: Sequence[Any] | None) -> Server | None:
    if row is None:
        return None
    server = Server(*row)
    known = _newest.get(server.system_identifier, 0)
    if server.timeline > known:
        _newest[server.system_identifier] = server.timeline
        if known:
            log.warning("failover_noticed", timeline=server.timeline, before=known)
    return server


def best_first(address: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The addresses to try: hosts that are primaries, the newest one first; then all as given.

    libpq takes the first host that accepts writes, and an old primary may.
    """
    alone = list(each_host(address))
    if len(alone) == 1:
        return [address]
    key = make_conninfo("", **address)
    with _looking:
        looked_at, primaries = _looked.get(key, (0.0, []))
        if not looked_at or monotonic() - looked_at > LOOK_SECONDS:
            with ThreadPoolExecutor(len(alone)) as threads:
                found = zip(threads.map(_look, alone), alone, strict=True)
                servers = [(server, host) for server, host in found if server is not None]
            servers.sort(key=lambda each: each[0].timeline, reverse=True)
            primaries = [host for _, host in servers]
            _looked[key] = monotonic(), primaries
    return [*primaries, address]


def _look(address: Mapping[str, Any]) -> Server | None:
    with (
        suppress(psycopg.Error),
        psycopg.connect(**address, autocommit=True) as connection,
    ):
        return server_of(connection)
    return None


def each_host(address: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The address of each host alone."""
    hosts, ports = (str(address.get(key) or "").split(",") for key in ("host", "port"))
    if "hostaddr" in address or len(hosts) == 1:
        yield address
        return
    for index, host in enumerate(hosts):
        port = ports[index] if index < len(ports) else ports[-1]
        given = {"host": host, "port": port}
        yield {**address, **{key: value or None for key, value in given.items()}}
