"""A host that has gone without a word is noticed by what it was connected to, within seconds."""

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from kratos_sync.infrastructure.postgres.engine import connect
from tests.hosts.network import Host, Network
from tests.hosts.servers import HostPostgres, HostValkey
from tests.namespaces import why_not
from tests.waiting import until

NOTICED_SECONDS = 40.0
"""More than it takes, and less than with the keepalives that are usual."""
ESTABLISHED = "01"
IN_TRANSACTION, IN_SESSION = 11, 12
LOCK_UNTIL_COMMIT = text(f"SELECT pg_advisory_xact_lock({IN_TRANSACTION})")
LOCK = text(f"SELECT pg_advisory_lock({IN_SESSION})")
LOCKS = "SELECT objid::integer FROM pg_locks WHERE locktype = 'advisory'"


class Gone(NamedTuple):
    """A host that is cut off, and what it was connected to."""

    client: Host
    broker: Host
    observer: psycopg.Connection

    def locks(self) -> set[int]:
        """The locks that its sessions still have at PostgreSQL."""
        return {number for (number,) in self.observer.execute(LOCKS)}

    def is_connected_to_broker(self) -> bool:
        """Whether the host itself takes any connection to the broker for one that works."""
        with self.client.there.entered():
            connections = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
        broker = IPv4Address(self.broker.address).packed[::-1].hex().upper()
        peers = [each.split()[2:4] for each in connections]
        return any(peer.startswith(broker) and state == ESTABLISHED for peer, state in peers)


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gone]:
    """A host that had locks at PostgreSQL and a subscription at Redis."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("gone")
    with ExitStack() as undo:
        network = undo.enter_context(Network(["client", "postgresql", "broker"]))
        client, *servers = network.hosts.values()
        postgres = undo.enter_context(HostPostgres(folder / "postgresql", servers[0]))
        valkey = undo.enter_context(HostValkey(folder / "valkey", servers[1]))
        observer = undo.enter_context(psycopg.connect(postgres.url, autocommit=True))
        with client.there.entered():
            engine = connect(SecretStr(f"postgresql://postgres@{postgres.address}/postgres"), 2)
            undo.callback(engine.dispose)
            in_transaction, in_session = engine.connect(), engine.connect()
            in_transaction.execute(LOCK_UNTIL_COMMIT)
            in_session.execute(LOCK)
            in_session.commit()
            broker = WakefulRedisBroker.at(SecretStr(valkey.url))
            undo.callback(broker.close)
            broker.wakeups.event("anything")
        gone = Gone(client, servers[1], observer)
        until(gone.is_connected_to_broker)
        assert gone.locks() == {IN_TRANSACTION, IN_SESSION}
        network.cut(client.name)
        yield gone
        in_transaction.invalidate()
        in_session.invalidate()


def test_postgresql_frees_the_locks_of_its_transactions(gone: Gone) -> None:
    until(lambda: IN_TRANSACTION not in gone.locks(), NOTICED_SECONDS)


def test_postgresql_frees_the_locks_of_its_sessions(gone: Gone) -> None:
    until(lambda: IN_SESSION not in gone.locks(), NOTICED_SECONDS)


def test_a_subscription_to_a_broker_that_is_out_of_reach_is_given_up(gone: Gone) -> None:
    until(lambda: not gone.is_connected_to_broker(), NOTICED_SECONDS)
