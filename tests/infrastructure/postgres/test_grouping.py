"""Events of a consumer with a batch size of 1 share a transaction, and are undone alone there."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kratos_sync import Consumer, KratosIdentityUpdated, Transaction
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.pipeline import Batch, consuming, deliver
from kratos_sync.application.ports.unit_of_work import TimeLimitExceeded
from kratos_sync.infrastructure.ledger.inbox import PostgresUnitOfWork
from tests.domain.people import cause
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, person, subscribed, updated

IDS = [cause(number) for number in range(1, 5)]
SECOND = IDS[1]
OTHERS = [IDS[0], *IDS[2:]]
DEADLOCK = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$"
BROKEN = "SELECT 1 / 0"


class Base(DeclarativeBase):
    pass


class Receipt(Base):
    __tablename__ = "receipts"
    id: Mapped[UUID] = mapped_column(primary_key=True)


class Receipts:
    """The port: it writes as one of the functions below."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction

    write: Callable[[Transaction, UUID], object]


def by_core(transaction: Transaction, receipt: UUID) -> None:
    transaction.execute(insert(Receipt), {"id": receipt})


def by_connection(transaction: Transaction, receipt: UUID) -> None:
    transaction.connection.execute(insert(Receipt), {"id": receipt})


def by_session(transaction: Transaction, receipt: UUID) -> None:
    transaction.session.add(Receipt(id=receipt))


def by_cursor(transaction: Transaction, receipt: UUID) -> None:
    with transaction.driver.cursor() as cursor:
        cursor.execute("INSERT INTO receipts VALUES (%s)", (receipt,))


class Pay(Consumer[KratosIdentityUpdated]):
    """Has an effect that nothing can undo, and writes a receipt."""

    name = "Pay"
    batch_size = 1
    paid: ClassVar[list[UUID]] = []
    trouble: ClassVar[list[Callable[[Transaction], object]]] = []
    writes: ClassVar[bool] = True

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    def consume(self, event: KratosIdentityUpdated) -> None:
        transaction = self._receipts.transaction
        self.paid.append(event.id)
        if self.writes:
            type(self._receipts).write(transaction, event.id)
        if event.id == SECOND and self.trouble:
            self.trouble.pop()(transaction)


class Outcome:
    """What became of four events in one message."""

    def __init__(self, engine: Engine, kind: type[Pay], write: Any) -> None:
        Base.metadata.create_all(engine)
        ledger = PostgresLedger(engine)
        with subscribed(ledger, KratosIdentityUpdated, kind):
            for number in range(1, 5):
                ledger.publish(updated(number, person(number)), WEBHOOK)
        port: Any = type("Receipts", (Receipts,), {"write": staticmethod(write)})
        factory = ConsumerFactory([kind], {Receipts: port})
        unit = PostgresUnitOfWork(engine, factory, wake_relay=lambda: None)
        deliver(Batch(kind, IDS, unit, ledger))
        self.paid = kind.paid
        self.attempts = {each.event_id: each.outcome for each in ledger.attempts}
        with engine.connect() as connection:
            self.receipts = set(connection.execute(text("SELECT id FROM receipts")).scalars())


@pytest.fixture(autouse=True)
def enough_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "LONGEST_SECONDS", 3600.0)


@pytest.fixture
def pay() -> type[Pay]:
    return type("Pay", (Pay,), {"paid": [], "trouble": []})


every_way = pytest.mark.parametrize("write", [by_core, by_connection, by_session, by_cursor])


def fail(_: Transaction) -> None:
    raise ValueError("no money")


def fail_in_sql(transaction: Transaction) -> None:
    transaction.execute(text(BROKEN), {})


def lose_a_race(transaction: Transaction) -> None:
    transaction.execute(text(DEADLOCK), {})


def be_late(_: Transaction) -> None:
    raise TimeLimitExceeded("too slow")


def read_and_be_late(transaction: Transaction) -> None:
    transaction.fetch("SELECT 1", ())
    be_late(transaction)


def add_what_exists(transaction: Transaction) -> None:
    transaction.session.add(Receipt(id=IDS[0]))


def flush_what_exists(transaction: Transaction) -> None:
    add_what_exists(transaction)
    transaction.session.flush()


def roll_back_and_raise(transaction: Transaction) -> None:
    try:
        flush_what_exists(transaction)
    except IntegrityError:
        transaction.session.rollback()
        raise


def swallow_an_error(transaction: Transaction) -> None:
    with suppress(DBAPIError):
        fail_in_sql(transaction)


def add_if_new(transaction: Transaction) -> None:
    """The usual way with an ORM: nothing of the event is lost but what was not new."""
    try:
        flush_what_exists(transaction)
    except IntegrityError:
        transaction.session.rollback()


def end_the_transaction(transaction: Transaction) -> None:
    transaction.connection.rollback()


@every_way
@pytest.mark.parametrize(
    "trouble",
    [
        *(fail, fail_in_sql, swallow_an_error),
        *(add_what_exists, flush_what_exists, roll_back_and_raise),
    ],
)
def test_a_failing_event_is_undone_and_no_other_is_repeated(
    engine: Engine, pay: type[Pay], write: object, trouble: Callable[[Transaction], object]
) -> None:
    pay.trouble.append(trouble)

    outcome = Outcome(engine, pay, write)

    assert outcome.paid == IDS
    assert outcome.receipts == set(OTHERS)
    assert outcome.attempts == {SECOND: "failed", **dict.fromkeys(OTHERS, "succeeded")}


@pytest.mark.parametrize("batch_size", [1, 200])
@pytest.mark.parametrize("write", [by_core, by_session])
@pytest.mark.parametrize("trouble", [add_if_new, end_the_transaction])
def test_nothing_is_settled_whose_writes_are_lost(
    engine: Engine,
    pay: type[Pay],
    write: object,
    trouble: Callable[[Transaction], object],
    batch_size: int,
) -> None:
    pay.batch_size = batch_size
    pay.trouble.extend([trouble] * 9)

    outcome = Outcome(engine, pay, write)

    succeeded = {each for each, how in outcome.attempts.items() if how == "succeeded"}
    assert set(OTHERS) <= succeeded
    assert succeeded - outcome.receipts <= {SECOND}
    assert (SECOND in succeeded) == (trouble is add_if_new)


@every_way
def test_an_event_that_lost_a_race_is_undone_and_runs_again_alone(
    engine: Engine, pay: type[Pay], write: object
) -> None:
    pay.trouble.append(lose_a_race)

    outcome = Outcome(engine, pay, write)

    assert outcome.paid == [*IDS, SECOND]
    assert outcome.receipts == set(IDS)
    assert set(outcome.attempts.values()) == {"succeeded"}


def test_an_interruption_before_any_statement_repeats_no_other_event(
    engine: Engine, pay: type[Pay]
) -> None:
    pay.writes = False
    pay.trouble.append(be_late)

    outcome = Outcome(engine, pay, by_core)

    assert outcome.paid == IDS
    assert outcome.attempts == {SECOND: "failed", **dict.fromkeys(OTHERS, "succeeded")}


@pytest.mark.parametrize("trouble", [be_late, read_and_be_late])
@every_way
def test_an_interruption_that_may_have_come_in_a_statement_rolls_everything_back(
    engine: Engine, pay: type[Pay], write: object, trouble: Callable[[Transaction], object]
) -> None:
    pay.trouble.append(trouble)

    outcome = Outcome(engine, pay, write)

    assert outcome.paid == [*IDS[:2], *OTHERS]
    assert outcome.receipts == set(OTHERS)
    assert outcome.attempts == {SECOND: "failed", **dict.fromkeys(OTHERS, "succeeded")}
