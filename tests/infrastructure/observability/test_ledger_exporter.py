"""One relay of all exports the ledger's metrics."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from pydantic import SecretStr

from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability import ledger_exporter
from kratos_sync.infrastructure.observability.ledger_exporter import EXPORT_LOCK, LedgerExporter
from tests.waiting import until

HOLDERS = """
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) + objid::bigint = %s
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_exporter, "TICK_SECONDS", 0.05)


class Relay:
    """A relay as far as it exports metrics."""

    def __init__(self, database_url: str) -> None:
        self.exporter = LedgerExporter(SecretStr(database_url), ["Greet"])
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.exporter.run, args=(self.stopped,), daemon=True)

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join(60)
        assert not self.thread.is_alive()

    @property
    def exports(self) -> bool:
        return bool(self.exporter.values(define.DELIVERIES))


@contextmanager
def running(*relays: Relay) -> Iterator[None]:
    try:
        for relay in relays:
            relay.thread.start()
        yield
    finally:
        for relay in relays:
            relay.stop()


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def holders(database: psycopg.Connection) -> list[int]:
    return [pid for (pid,) in database.execute(HOLDERS, [EXPORT_LOCK]).fetchall()]


def test_one_relay_exports_all_of_them(database_url: str) -> None:
    relay = Relay(database_url)
    with running(relay):
        until(lambda: relay.exports)
        missing = [each.name for each in define.LEDGER if not relay.exporter.values(each)]
    # Nothing has succeeded, called or been compared yet.
    assert missing == [
        each.name
        for each in (
            define.LAST_SUCCESS,
            define.RECONCILED,
            define.REPAIRED,
            define.REFUSED,
            define.HOOK_SEEN,
        )
    ]


def test_of_two_relays_one_exports(database_url: str, database: psycopg.Connection) -> None:
    first, second = Relay(database_url), Relay(database_url)
    with running(first, second):
        until(lambda: first.exports or second.exports)
        ticks = threading.Event()
        for _ in range(10):
            assert first.exports != second.exports
            ticks.wait(0.05)
        assert len(holders(database)) == 1


def test_another_takes_over_when_the_first_stops(database_url: str) -> None:
    first, second = Relay(database_url), Relay(database_url)
    with running(first):
        until(lambda: first.exports)
        second.thread.start()
    until(lambda: second.exports)
    assert not first.exports
    second.stop()


def test_a_relay_whose_session_ends_leaves_out_what_it_has_read(
    database_url: str, database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(database_url)
    with running(relay):
        until(lambda: relay.exports)
        (pid,) = holders(database)
        monkeypatch.setattr(ledger_exporter.LedgerExporter, "_is_ours", lambda *_: False)
        database.execute("SELECT pg_terminate_backend(%s)", [pid])
        until(lambda: not relay.exports)
        monkeypatch.undo()
        until(lambda: relay.exports)


def test_what_was_read_is_left_out_once_postgresql_is_silent(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(database_url)
    with running(relay):
        until(lambda: relay.exports)
        monkeypatch.setattr(ledger_exporter, "STALE_SECONDS", 0.0)
        assert not relay.exports


def test_a_part_that_cannot_be_read_is_left_out_and_named_once(
    database_url: str,
    database: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ledger_exporter, "READ_SECONDS", 0.0)
    database.execute("ALTER TABLE kratos_sync.hooks_heard RENAME TO hidden")
    relay = Relay(database_url)
    with running(relay):
        until(lambda: relay.exports)
        read_at = relay.exporter.values(define.LEDGER_READ)[()]
        until(lambda: relay.exporter.values(define.LEDGER_READ).get((), 0) > read_at)
        assert not relay.exporter.values(define.HOOK_SEEN)
        assert relay.exporter.values(define.TABLE_SIZE)
    written = capsys.readouterr()
    assert (written.out + written.err).count("ledger_metrics_left_out") == 1


def test_asking_for_values_never_waits_for_postgresql(
    database_url: str, database: psycopg.Connection
) -> None:
    relay = Relay(database_url)
    with running(relay):
        until(lambda: relay.exports)
        with database.transaction():
            database.execute("LOCK TABLE kratos_sync.deliveries IN ACCESS EXCLUSIVE MODE")
            assert relay.exports
