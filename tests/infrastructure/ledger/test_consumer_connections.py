"""What fails on a consumer's own connections is its failure, and holds up nobody else."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import RoomAgain
from kratos_sync.domain.events import DomainEvent, KratosIdentityUpdated
from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.actor import Actor
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.inbox import PostgresUnitOfWork
from kratos_sync.infrastructure.ledger.status import PostgresStatus
from kratos_sync.infrastructure.postgres import transaction as transactions
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.infrastructure.postgres.transaction import Transaction
from kratos_sync.infrastructure.worker.watchdog import Watchdog
from tests.domain.people import GRACE, cause
from tests.infrastructure.bus.peeking import AnyBroker
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, person, subscribed, updated
from tests.waiting import DEADLINE_SECONDS

NOWHERE = "postgresql://ada@/nowhere?host=/nonexistent"
MANY = 20
GRACES = 7
"""The number of the event that gets its consumer into trouble."""

Trouble = Callable[["Surroundings", Transaction], object]


class Surroundings:
    """Databases of an application's own, each as real as ours."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.engine = create_engine(
            url.replace("postgresql:", "postgresql+psycopg:", 1),
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            pool_timeout=0.01,
        )

    def raise_there(self, sqlstate: str) -> None:
        """Let the other server raise it."""
        _raise(self.engine, sqlstate)


def _raise(engine: Engine, sqlstate: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(_raising(sqlstate))


def _raising(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{sqlstate}'; END $$"


def _cannot_connect(_: Surroundings, __: Transaction) -> None:
    psycopg.connect(NOWHERE)


def _cannot_connect_by_sqlalchemy(_: Surroundings, __: Transaction) -> None:
    create_engine(NOWHERE.replace(":", "+psycopg:", 1)).connect()


def _lose_the_other_connection(here: Surroundings, _: Transaction) -> None:
    with psycopg.connect(here.url) as lost, psycopg.connect(here.url) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [lost.info.backend_pid])
        lost.execute("SELECT 1")


def _wait_for_the_pool(here: Surroundings, _: Transaction) -> None:
    with here.engine.connect(), here.engine.connect():
        pass


def _wait_for_a_lock(here: Surroundings, _: Transaction) -> None:
    with psycopg.connect(here.url) as holding, psycopg.connect(here.url) as waiting:
        holding.execute("SELECT pg_advisory_xact_lock(1)")
        waiting.execute("SET lock_timeout = '10ms'")
        waiting.execute("SELECT pg_advisory_xact_lock(1)")


def _deadlock(here: Surroundings, _: Transaction) -> None:
    here.raise_there("40P01")


def _cannot_serialize(here: Surroundings, _: Transaction) -> None:
    here.raise_there("40001")


def _find_the_other_disk_full(here: Surroundings, _: Transaction) -> None:
    here.raise_there("53100")


def _find_sqlite_locked(here: Surroundings, _: Transaction) -> None:
    path = here.folder / "own.db"
    with closing(sqlite3.connect(path)) as holding, closing(sqlite3.connect(path, 0.01)) as other:
        holding.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE t (x)")


def _find_sqlite_locked_by_sqlalchemy(here: Surroundings, _: Transaction) -> None:
    path = here.folder / "own.db"
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.01})
    try:
        with closing(sqlite3.connect(path)) as holding, engine.begin() as connection:
            holding.execute("BEGIN EXCLUSIVE")
            connection.execute(text("CREATE TABLE t (x)"))
    finally:
        engine.dispose()


def _be_refused(_: Surroundings, __: Transaction) -> None:
    raise ConnectionRefusedError(111, "Connection refused")


def _find_another_ledger_away(_: Surroundings, __: Transaction) -> None:
    with Transaction(connect(SecretStr(NOWHERE), pool_size=1)).begin(timedelta(seconds=1)):
        pass


def _run_the_server_out_of_memory(_: Surroundings, transaction: Transaction) -> None:
    transaction.execute(text(_raising("53200")), {})


def _run_the_server_out_of_disk(_: Surroundings, transaction: Transaction) -> None:
    transaction.fetch(_raising("53100").encode(), [])


def _pretend_a_shutdown(_: Surroundings, transaction: Transaction) -> None:
    transaction.execute(text(_raising("57P01")), {})


def _write_in_a_read_only_transaction(_: Surroundings, transaction: Transaction) -> None:
    transaction.execute(text("SET LOCAL transaction_read_only = on"), {})
    transaction.execute(text("INSERT INTO notes VALUES (gen_random_uuid())"), {})


def _leave_the_transaction_aborted(_: Surroundings, transaction: Transaction) -> None:
    with suppress(DBAPIError):
        transaction.execute(text("SELECT 1 / 0"), {})


def _close_our_connection(_: Surroundings, transaction: Transaction) -> None:
    transactions.driver_of(transaction.connection).close()


def _leave_our_connection_busy(_: Surroundings, transaction: Transaction) -> None:
    transactions.driver_of(transaction.connection).pgconn.send_query(b"SELECT 1")


def _break_a_rule_that_is_checked_at_commit(_: Surroundings, transaction: Transaction) -> None:
    transaction.execute(
        text("CREATE TEMP TABLE own (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)"), {}
    )
    transaction.execute(text("INSERT INTO own VALUES (1), (1)"), {})


class _AnotherLedger:
    """A participant that records in a ledger of its own, which is away."""

    def __init__(self, fails_in: str) -> None:
        self._fails_in = fails_in

    def flush(self) -> None:
        self._use("flush")

    def collect_events(self) -> list[DomainEvent]:
        self._use("collect_events")
        return []

    def savepoint(self) -> None:
        self._use("savepoint")

    def roll_back_to_savepoint(self) -> None:
        pass

    def _use(self, what: str) -> None:
        if what == self._fails_in:
            raise LedgerUnavailable("the other one")


def _find_another_ledger_away_when_flushed(_: Surroundings, transaction: Transaction) -> None:
    transaction.join(_AnotherLedger("flush"))


def _find_another_ledger_away_when_collected(_: Surroundings, transaction: Transaction) -> None:
    transaction.join(_AnotherLedger("collect_events"))


def _raise_what_only_the_ledger_should(_: Surroundings, __: Transaction) -> None:
    raise RoomAgain


class _Odd(Exception):
    """What a row cannot hold as it is."""


_Odd.__qualname__ = "Odd\ud800\x00"


def _raise_an_error_of_an_odd_name(_: Surroundings, __: Transaction) -> None:
    raise _Odd


def _raise_an_error_of_no_module(_: Surroundings, __: Transaction) -> None:
    raise type("Homeless", (Exception,), {"__module__": None})


class _Unspeakable(Exception):
    """An error that ends the process of whoever asks what it says."""

    def __str__(self) -> str:
        raise SystemExit(3)


def _raise_an_error_without_a_text(_: Surroundings, __: Transaction) -> None:
    raise _Unspeakable


TROUBLES: list[Trouble] = [
    _cannot_connect,
    _cannot_connect_by_sqlalchemy,
    _lose_the_other_connection,
    _wait_for_the_pool,
    _wait_for_a_lock,
    _deadlock,
    _cannot_serialize,
    _find_the_other_disk_full,
    _find_sqlite_locked,
    _find_sqlite_locked_by_sqlalchemy,
    _be_refused,
    _find_another_ledger_away,
    _run_the_server_out_of_memory,
    _run_the_server_out_of_disk,
    _pretend_a_shutdown,
    _write_in_a_read_only_transaction,
    _leave_the_transaction_aborted,
    _close_our_connection,
    _leave_our_connection_busy,
    _break_a_rule_that_is_checked_at_commit,
    _find_another_ledger_away_when_flushed,
    _find_another_ledger_away_when_collected,
    _raise_what_only_the_ledger_should,
    _raise_an_error_of_an_odd_name,
    _raise_an_error_of_no_module,
    _raise_an_error_without_a_text,
]


class Port:
    """The transaction itself."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction


class UseAnother(Consumer[KratosIdentityUpdated]):
    """Notes everybody in our database, and for Grace gets into trouble, with another one mostly."""

    name = "UseAnother"
    trouble: ClassVar[Trouble]
    here: ClassVar[Surroundings]
    runs: ClassVar[list[UUID]]

    def __init__(self, port: Port) -> None:
        self._transaction = port.transaction

    def consume(self, event: KratosIdentityUpdated) -> None:
        statement = text("INSERT INTO notes VALUES (:who)")
        self._transaction.execute(statement, {"who": event.identity.id})
        self.runs.append(event.identity.id)
        if event.identity.id == GRACE:
            type(self).trouble(self.here, self._transaction)


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (who uuid)"))
    return PostgresLedger(engine)


@pytest.fixture
def here(empty_database_url: str, tmp_path: Path) -> Iterator[Surroundings]:
    here = Surroundings(empty_database_url, tmp_path)
    yield here
    here.engine.dispose()


def consumer_in(trouble: Trouble, here: Surroundings) -> type[UseAnother]:
    attributes: dict[str, Any] = {"trouble": staticmethod(trouble), "here": here, "runs": []}
    return type("UseAnother", (UseAnother,), attributes)


def publish(ledger: PostgresLedger, kind: type[UseAnother], many: int) -> list[UUID]:
    with subscribed(ledger, KratosIdentityUpdated, kind):
        for number in range(1, many + 1):
            who = GRACE if number == min(GRACES, many) else person(number)
            assert ledger.publish(updated(number, who), WEBHOOK)
    return [cause(number) for number in range(1, many + 1)]


def work(ledger: PostgresLedger, kind: type[UseAnother], event_ids: list[UUID]) -> None:
    factory = ConsumerFactory([kind], {Port: Port})
    unit = PostgresUnitOfWork(ledger.engine, factory, wake_relay=lambda: None)
    deliver(Batch(kind, event_ids, unit, ledger))


@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_fails_beside_our_ledger_counts_for_its_event_alone(
    ledger: PostgresLedger, here: Surroundings, trouble: Trouble
) -> None:
    kind = consumer_in(trouble, here)

    work(ledger, kind, publish(ledger, kind, MANY))

    outcomes = {each.event_id: each.outcome for each in ledger.attempts}
    assert len(ledger.attempts) == len(outcomes) == MANY
    assert {event_id for event_id in outcomes if outcomes[event_id] == "failed"} == {cause(GRACES)}
    assert [each.attempts for each in ledger.deliveries.values()] == [1]
    (noted,) = ledger.query("SELECT count(*) FROM notes")
    assert noted["count"] == MANY - 1


@pytest.mark.parametrize("trouble", [_deadlock, _cannot_serialize, _wait_for_a_lock])
def test_a_conflict_in_another_database_is_not_begun_anew(
    ledger: PostgresLedger, here: Surroundings, trouble: Trouble
) -> None:
    kind = consumer_in(trouble, here)

    work(ledger, kind, publish(ledger, kind, 1))

    assert kind.runs == [GRACE]
    assert [each.outcome for each in ledger.attempts] == ["failed"]


def test_a_conflict_in_our_database_is_begun_anew_whatever_a_consumer_makes_of_it(
    ledger: PostgresLedger, here: Surroundings
) -> None:
    def conflict_once(_: Surroundings, transaction: Transaction) -> None:
        if len(kind.runs) == 1:
            try:
                transaction.execute(text(_raising("40P01")), {})
            except DBAPIError:
                raise LookupError("nothing was found") from None

    kind = consumer_in(conflict_once, here)

    work(ledger, kind, publish(ledger, kind, 1))

    assert kind.runs == [GRACE, GRACE]
    assert [each.outcome for each in ledger.attempts] == ["succeeded"]


def test_a_conflict_in_our_database_is_begun_anew_when_it_comes_in_a_group(
    ledger: PostgresLedger, here: Surroundings
) -> None:
    def conflict_once(_: Surroundings, transaction: Transaction) -> None:
        if len(kind.runs) > 1:
            return
        conflicts: list[Exception] = []
        try:
            transaction.execute(text(_raising("40P01")), {})
        except DBAPIError as error:
            conflicts.append(error)
        raise ExceptionGroup("several", [LookupError(), ExceptionGroup("one", conflicts)])

    kind = consumer_in(conflict_once, here)

    work(ledger, kind, publish(ledger, kind, 1))

    assert kind.runs == [GRACE, GRACE]
    assert [each.outcome for each in ledger.attempts] == ["succeeded"]


@pytest.mark.parametrize("sqlstate", ["53100", "53200"])
@pytest.mark.parametrize("many", [1, MANY])
def test_a_server_that_was_full_and_has_room_again_costs_no_delivery_an_attempt(
    ledger: PostgresLedger, here: Surroundings, sqlstate: str, many: int
) -> None:
    def be_full_once(_: Surroundings, transaction: Transaction) -> None:
        if kind.runs.count(GRACE) <= (1 if many == 1 else 6):
            transaction.execute(text(_raising(sqlstate)), {})

    kind = consumer_in(be_full_once, here)

    work(ledger, kind, publish(ledger, kind, many))

    assert [each.outcome for each in ledger.attempts] == ["succeeded"] * many


def test_a_database_of_its_own_that_is_away_keeps_no_thread_of_a_worker(
    engine: Engine, ledger: PostgresLedger, here: Surroundings, broker: AnyBroker
) -> None:
    kind = consumer_in(_cannot_connect, here)
    factory = ConsumerFactory([kind], {Port: Port})
    Actor(
        broker,
        Subscriptions({KratosIdentityUpdated: [kind]}),
        lambda: PostgresUnitOfWork(engine, factory, wake_relay=lambda: None),
        ledger,
        Watchdog(ledger, PostgresClaims(engine, timedelta(minutes=1))),
        ledger_timeout=timedelta(minutes=5),
    ).declare()
    event_ids = publish(ledger, kind, MANY)
    perform = broker.get_actor(wire_format.ACTOR).fn

    began = monotonic()
    perform(**wire_format.write(kind.name, event_ids))

    assert monotonic() - began < DEADLINE_SECONDS
    assert len(ledger.attempts) == MANY


def test_status_shows_what_fails_beside_our_ledger(
    engine: Engine, ledger: PostgresLedger, here: Surroundings
) -> None:
    kind = consumer_in(_cannot_connect, here)

    work(ledger, kind, publish(ledger, kind, 1))

    status = PostgresStatus(engine).report([kind.name]).consumers[0]
    assert (status.backlog, status.waiting, status.postponed) == (1, 1, 0)


def test_an_exhausted_server_costs_no_delivery_an_attempt(
    ledger: PostgresLedger, here: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "NEEDS_ROOM", _raising("53100"))
    kind = consumer_in(_run_the_server_out_of_disk, here)

    with pytest.raises(LedgerUnavailable):
        work(ledger, kind, publish(ledger, kind, MANY))

    assert ledger.attempts == []


def test_a_database_that_became_a_standby_costs_no_delivery_an_attempt(
    ledger: PostgresLedger, here: Surroundings
) -> None:
    def become_a_standby(_: Surroundings, transaction: Transaction) -> None:
        transaction.execute(text("SET SESSION default_transaction_read_only = on"), {})
        transaction.connection.commit()
        transaction.execute(text("INSERT INTO notes VALUES (gen_random_uuid())"), {})

    kind = consumer_in(become_a_standby, here)

    with pytest.raises(LedgerUnavailable):
        work(ledger, kind, publish(ledger, kind, 1))

    assert ledger.attempts == []
