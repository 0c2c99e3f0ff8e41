"""A primary is lost and its standby promoted, under steady webhooks: everything goes on."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from kratos_sync.infrastructure.embedded.server import ENVIRONMENT
from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.engine import connect
from tests.end_to_end.processes import Processes
from tests.end_to_end.test_outage import Sending, assert_each_is_one_event_and_delivered_once
from tests.end_to_end.wire import KEY
from tests.infrastructure.servers_postgres import ReturningPostgres
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until


class Primary(ReturningPostgres):
    """A PostgreSQL on loopback, which waits for its standby before it answers a commit."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        tcp = {"listen_addresses": "127.0.0.1", "port": str(self.port)}
        super().__init__(folder, {**tcp, **settings})


class Standby(Primary):
    """A copy of a primary that follows it until it is promoted."""

    def __init__(self, folder: Path, primary: Primary) -> None:
        super().__init__(folder)
        self._primary = primary

    def _initialize(self, initdb: Path) -> None:
        copy = self._directory / "data.new"
        copy.mkdir(mode=0o700)
        self._give(copy)
        user, group = self._identity() or (None, None)
        source = f"postgresql://postgres@{self._primary.address}/?application_name=standby"
        backup = [initdb.with_name("pg_basebackup"), "-D", copy, "-d", source, "-R", "-c", "fast"]
        subprocess.run(
            backup,
            env=ENVIRONMENT,
            capture_output=True,
            check=True,
            timeout=DEADLINE_SECONDS,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )
        copy.rename(self._data)

    def _is_ready(self) -> bool:
        with suppress(FileNotFoundError):
            return self._pid_file().read_text().split()[-1] in {"standby", "ready"}
        return False

    def promote(self) -> None:
        """Make it the primary."""
        with psycopg.connect(f"postgresql://postgres@{self.address}/") as connection:
            connection.execute("SELECT pg_promote()")


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Primary]:
    with Primary(tmp_path / "primary") as server:
        yield server


@pytest.fixture
def standby(primary: Primary, tmp_path: Path) -> Iterator[Standby]:
    with Standby(tmp_path / "standby", primary) as server:
        yield server


def test_a_failover_under_steady_webhooks_loses_nothing(
    primary: Primary, standby: Standby, broker_url: str, tmp_path: Path
) -> None:
    # The standby comes first: it is asked, and passed over, as long as it is one.
    hosts = [standby.address, primary.address]
    url = f"postgresql://postgres@{','.join(hosts)}/postgres?target_session_attrs=read-write"
    engine = connect(SecretStr(url), pool_size=2)
    migrate(engine)
    engine.dispose()
    settings = {
        "DATABASE_URL": url,
        "BROKER_URL": broker_url,
        "KRATOS_WEBHOOK_API_KEYS": KEY,
        "LOG_FORMAT": "json",
    }
    with Processes(tmp_path, settings) as processes:
        code, said = processes.run("status")
        assert code == 0
        assert "waits for none of its standbys" in " ".join(said.split())
        wait_for_the_standby(primary)

        processes.start_api()
        processes.start("relay", "relay")
        processes.start("worker", "worker")
        processes.wait_for("worker", "worker_started")
        until(lambda: listens(primary))
        sending = Sending(processes.http.base_url.port or 0, rate=20)
        sender = sending.start()
        until(lambda: len(sender.accepted) >= 40)
        primary.go_away()
        processes.wait_for("api", "webhook_waiting")
        standby.promote()
        accepted = len(sender.accepted)
        until(lambda: len(sender.accepted) >= accepted + 100)
        until(lambda: listens(standby))
        sending.finish()

        assert sender.lost == {}
        now_primary = f"postgresql://postgres@{standby.address}/postgres"
        assert_each_is_one_event_and_delivered_once(now_primary, sender)
        assert processes.run("status")[0] == 0
        assert processes.stop("api", "relay", "worker") == {"api": 0, "relay": 0, "worker": 0}


def wait_for_the_standby(primary: Primary) -> None:
    """Have every commit on both from now on: the standby's copy is what will be left."""
    with psycopg.connect(f"postgresql://postgres@{primary.address}/", autocommit=True) as asking:
        asking.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        asking.execute("SELECT pg_reload_conf()")
        state = "SELECT sync_state FROM pg_stat_replication"
        until(lambda: asking.execute(state).fetchall() == [("sync",)])


def listens(server: Primary) -> bool:
    """Whether the relay waits for wake-ups there."""
    with psycopg.connect(f"postgresql://postgres@{server.address}/") as asking:
        statement = """
            SELECT FROM pg_stat_activity
            WHERE application_name = 'kratos-sync relay' AND query LIKE 'LISTEN%'
        """
        return bool(asking.execute(statement).fetchall())
