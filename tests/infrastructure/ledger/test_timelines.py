"""A failover is noticed, kept in the ledger, and shown until a reconciliation has followed."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from kratos_sync.application.ports.status import Failover
from kratos_sync.infrastructure.ledger.status import PostgresStatus
from kratos_sync.infrastructure.ledger.timelines import TimelineWatch
from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres import servers
from kratos_sync.infrastructure.postgres.connections import (
    SessionConnection,
    connection_arguments,
    open_connection,
)
from kratos_sync.infrastructure.postgres.engine import connect, driver_of
from kratos_sync.infrastructure.postgres.servers import Server
from tests.infrastructure.replicas import Primary, Standby
from tests.waiting import until


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Primary]:
    with Primary(tmp_path / "primary") as server:
        yield server


@pytest.fixture
def standby(primary: Primary, tmp_path: Path) -> Iterator[Standby]:
    engine = engine_at(primary)
    migrate(engine)
    engine.dispose()
    with Standby(tmp_path / "standby", primary) as server:
        yield server


@pytest.fixture(autouse=True)
def forget_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin as a process does, which has seen no server."""
    monkeypatch.setattr(servers, "_newest", {})
    monkeypatch.setattr(servers, "_looked", {})


def url_of(*hosts: Primary) -> SecretStr:
    addresses = ",".join(host.address for host in hosts)
    return SecretStr(f"postgresql://postgres@{addresses}/postgres?target_session_attrs=read-write")


def engine_at(*hosts: Primary) -> Engine:
    return connect(url_of(*hosts), pool_size=2)


def failover_at(engine: Engine) -> Failover | None:
    return PostgresStatus(engine).report([]).failover


def add_reconciliation(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO kratos_sync.reconciliations (held, outcome, ended_at)
                VALUES (0, 'completed', clock_timestamp())
            """)
        )


def follows(standby: Standby, primary: Primary) -> bool:
    return standby.ask("SELECT pg_last_wal_replay_lsn()") >= primary.ask(
        "SELECT pg_current_wal_lsn()"
    )


def test_a_database_that_stayed_where_it_was_tells_of_no_failover(engine: Engine) -> None:
    watch = TimelineWatch(engine)
    for _ in range(2):
        watch.run_once(Event())

    assert failover_at(engine) is None
    with engine.connect() as connection:
        noted = connection.execute(text("SELECT count(*) FROM kratos_sync.timelines")).scalar_one()
    assert noted == 1


def test_commits_that_the_standby_never_had_are_missing_for_certain(
    primary: Primary, standby: Standby
) -> None:
    engine = engine_at(standby, primary)
    watch = TimelineWatch(engine)
    watch.run_once(Event())
    until(lambda: follows(standby, primary))
    with primary.sending_nothing():
        primary.ask_nothing("CREATE TABLE lost AS SELECT generate_series(1, 10000)")
        watch.run_once(Event())
        primary.crash()
    standby.promote()

    until(lambda: noted_by(watch, engine))
    found = failover_at(engine)

    assert found is not None
    assert (found.timeline, found.before, found.is_same_cluster) == (2, 1, True)
    assert found.missing_bytes is not None
    assert found.missing_bytes > 100_000
    assert found.last_commit_at is not None
    assert found.last_commit_at < found.at
    add_reconciliation(engine)
    assert failover_at(engine) is None
    engine.dispose()


def noted_by(watch: TimelineWatch, engine: Engine) -> bool:
    from kratos_sync.application.ports.event_bus import LedgerUnavailable

    try:
        watch.run_once(Event())
    except LedgerUnavailable:
        return False
    return True


def test_a_relay_that_was_not_there_tells_of_the_failover_and_not_how_much_is_missing(
    primary: Primary, standby: Standby
) -> None:
    engine = engine_at(primary)
    TimelineWatch(engine).run_once(Event())
    engine.dispose()
    until(lambda: follows(standby, primary))
    primary.crash()
    standby.promote()

    engine = engine_at(primary, standby)
    TimelineWatch(engine).run_once(Event())

    found = failover_at(engine)
    assert found is not None
    assert (found.timeline, found.before, found.missing_bytes) == (2, 1, None)
    engine.dispose()


def test_a_dump_that_was_restored_elsewhere_is_another_cluster(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO kratos_sync.timelines (system_identifier, timeline) VALUES ('1', 7)")
        )

    TimelineWatch(engine).run_once(Event())

    found = failover_at(engine)
    assert found is not None
    assert (found.before, found.is_same_cluster) == (7, False)


def test_of_two_primaries_the_newest_is_used_whatever_their_order(
    primary: Primary, standby: Standby
) -> None:
    until(lambda: follows(standby, primary))
    standby.promote()

    for hosts in ((primary, standby), (standby, primary)):
        with open_connection(connection_arguments(url_of(*hosts))) as connection:
            assert connection.info.port == standby.port
            assert connection.server is not None
            assert connection.server.timeline == 2


def test_connections_to_a_primary_that_was_replaced_are_not_used_again(
    primary: Primary, standby: Standby
) -> None:
    engine = engine_at(primary)
    with engine.connect() as connection:
        held = driver_of(connection)
        assert isinstance(held, SessionConnection)
        assert not held.is_behind
    until(lambda: follows(standby, primary))
    standby.promote()
    open_connection(connection_arguments(url_of(standby))).close()

    assert held.is_behind
    with pytest.raises(OperationalError, match="it is an old primary"), engine.connect():
        pass
    engine.dispose()


def test_a_server_that_does_not_offer_its_timeline_is_used(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "WHICH_SERVER", "SELECT no_such_function()")

    with open_connection(connection_arguments(SecretStr(database_url))) as connection:
        assert connection.server is None
        assert not connection.is_behind


def test_the_primary_is_named_by_cluster_and_timeline(database_url: str) -> None:
    with open_connection(connection_arguments(SecretStr(database_url))) as connection:
        [identifier] = connection.execute(
            "SELECT system_identifier::text FROM pg_control_system()"
        ).fetchone() or [""]
        assert connection.server == Server(identifier, 1)
