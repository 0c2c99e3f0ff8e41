"""Behind a real PgBouncer, in transaction mode and with the documented settings."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.infrastructure.ledger.notifications import WakeUpListener
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.end_to_end.processes import Processes
from tests.end_to_end.wire import KEY, Wire, call
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.programs import missing
from tests.servers.installed import MISSING
from tests.servers.pgbouncer import Pgbouncer
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import updated
from tests.waiting import at_once, until


def pgbouncer(folder: Path, url: str, **settings: str) -> Pgbouncer:
    if reason := MISSING["pgbouncer"]():
        missing(reason)
    return Pgbouncer(folder, url, **settings)


@pytest.fixture(scope="module")
def pooler(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Pgbouncer]:
    # One session for all: whatever a client leaves in it, the others find.
    folder = tmp_path_factory.mktemp("pgbouncer")
    with pgbouncer(folder, postgres_url, default_pool_size="1") as server:
        yield server


def test_all_processes_work_and_commands_need_a_way_past_it(
    pooler: Pgbouncer, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    people = InMemoryDocuments()
    with AdminStandIn(people) as kratos:
        settings = {
            "DATABASE_URL": pooler.leading_to(database_url),
            "BROKER_URL": broker_url,
            "KRATOS_WEBHOOK_API_KEYS": KEY,
            "KRATOS_ADMIN_URL": kratos.url,
            "LOG_FORMAT": "json",
        }
        with Processes(tmp_path, settings) as processes:
            processes.start_api()
            processes.start("relay", "relay", DATABASE_DIRECT_URL=database_url)
            processes.start("worker", "worker")
            with Wire(processes.http.base_url.port or 0) as wire:
                for _ in range(20):
                    document = person()
                    people.put(document)
                    wire.send(call(json.dumps({"identity": document}).encode()))
                    assert wire.answer().status == 200
            people.put(person())  # whose webhook never came
            with psycopg.connect(database_url, autocommit=True) as outside:

                def count(statement: bytes) -> int:
                    [[number]] = outside.execute(statement).fetchall()
                    return int(number)

                held = b"SELECT count(*) FROM kratos_sync.kratos_identities"
                until(lambda: count(held) == 20)
                listening = b"""
                    SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND query = 'LISTEN kratos_sync_due'
                """
                assert count(listening) == 1
                for command in ("reconcile", "migrate"):
                    code, said = processes.run(command)
                    assert (code, len(said.splitlines())) == (1, 1), said
                    assert "a pooler shares the sessions of this connection" in said
                    code, said = processes.run(command, DATABASE_DIRECT_URL=database_url)
                    assert code == 0, said
                until(lambda: count(held) == 21)
                locks = b"""
                    SELECT count(*) FROM pg_locks
                    WHERE locktype = 'advisory' AND database = (
                        SELECT oid FROM pg_database WHERE datname = current_database())
                """
                until(lambda: count(locks) == 0)
            for command in ("status", "purge"):
                code, said = processes.run(command)
                assert code == 0, said
            assert processes.stop("api", "relay", "worker") == {"api": 0, "relay": 0, "worker": 0}


def test_a_relay_does_not_listen_through_it(pooler: Pgbouncer, database_url: str) -> None:
    url = SecretStr(pooler.leading_to(database_url))
    listener, stopped = WakeUpListener(url), threading.Event()
    listener.wait(0.01, stopped)
    listener.wait(0.01, stopped)
    listener.close()

    with psycopg.connect(url.get_secret_value(), autocommit=True) as another:
        assert another.execute("SELECT * FROM pg_listening_channels()").fetchall() == []


def test_settings_are_those_of_a_transaction_and_nobody_elses(
    pooler: Pgbouncer, database_url: str
) -> None:
    engine = connect(SecretStr(pooler.leading_to(database_url)), pool_size=1)
    with engine.begin() as connection:
        ours = connection.execute(text("SHOW lock_timeout")).scalar_one()
    with psycopg.connect(pooler.leading_to(database_url), autocommit=True) as another:
        theirs = another.execute("SHOW lock_timeout").fetchone()
    engine.dispose()

    assert (ours, theirs) == ("10s", ("0",))


def recorded(engine: Engine, first: int) -> Callable[[], None]:
    def record() -> None:
        ledger = PostgresLedger(engine)
        for number in range(first, first + 20):
            assert ledger.publish(updated(number), Provenance("webhook"))

    return record


def test_prepared_statements_of_many_clients_share_a_session(
    pooler: Pgbouncer, database_url: str
) -> None:
    engines = [connect(SecretStr(pooler.leading_to(database_url)), 2) for _ in range(4)]

    at_once(*(recorded(engine, 100 * place) for place, engine in enumerate(engines)))

    assert len(PostgresLedger(engines[0]).events) == 80
    for engine in engines:
        engine.dispose()


def test_a_pooler_that_keeps_no_prepared_statements_apart_is_named(
    tmp_path: Path, postgres_url: str, database_url: str
) -> None:
    settings = {"default_pool_size": "1", "max_prepared_statements": "0"}
    with pgbouncer(tmp_path / "pgbouncer", postgres_url, **settings) as pooler:
        engines = [connect(SecretStr(pooler.leading_to(database_url)), 2) for _ in range(4)]
        with pytest.raises(LedgerUnavailable, match=r"PgBouncer older than 1\.22"):
            at_once(*(recorded(engine, 100 * place) for place, engine in enumerate(engines)))
        for engine in engines:
            engine.dispose()
