"""What an application's adapters do in the transaction happens with the delivery, or not at all."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kratos_sync import Consumer, KratosIdentityUpdated, Transaction
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.infrastructure.ledger.inbox import PostgresUnitOfWork
from tests.domain.people import cause
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, person, subscribed, updated


class Base(DeclarativeBase):
    pass


class Letter(Base):
    __tablename__ = "letters"
    id: Mapped[UUID] = mapped_column(primary_key=True)


Writer = Callable[[Transaction, UUID], object]


class Letters:
    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction

    write: Writer


def by_core(transaction: Transaction, letter: UUID) -> None:
    transaction.execute(insert(Letter), {"id": letter})


def by_connection(transaction: Transaction, letter: UUID) -> None:
    transaction.connection.execute(insert(Letter), {"id": letter})


def by_session(transaction: Transaction, letter: UUID) -> None:
    transaction.session.add(Letter(id=letter))


def by_cursor(transaction: Transaction, letter: UUID) -> None:
    with transaction.driver.cursor() as cursor:
        cursor.execute("INSERT INTO letters VALUES (%s)", (letter,))


class WriteLetters(Consumer[KratosIdentityUpdated]):
    name = "WriteLetters"
    fails_on: UUID | None = None

    def __init__(self, letters: Letters) -> None:
        self._letters = letters

    def consume(self, event: KratosIdentityUpdated) -> None:
        type(self._letters).write(self._letters.transaction, event.id)
        if event.id == self.fails_on:
            raise ValueError("no ink")


@pytest.mark.parametrize("write", [by_core, by_connection, by_session, by_cursor])
@pytest.mark.parametrize("failing", [None, 2])
def test_a_failing_event_is_undone_and_the_others_are_written_once(
    engine: Engine, write: Writer, failing: int | None
) -> None:
    Base.metadata.create_all(engine)
    ledger = PostgresLedger(engine)
    port: Any = type("Letters", (Letters,), {"write": staticmethod(write)})
    fails_on = None if failing is None else cause(failing)
    kind = type("WriteLetters", (WriteLetters,), {"fails_on": fails_on})
    with subscribed(ledger, KratosIdentityUpdated, kind):
        for number in range(1, 5):
            ledger.publish(updated(number, person(number)), WEBHOOK)
    factory = ConsumerFactory([kind], {Letters: port})
    unit = PostgresUnitOfWork(engine, factory, wake_relay=lambda: None)

    deliver(Batch(kind, [cause(number) for number in range(1, 5)], unit, ledger))

    with engine.connect() as connection:
        written = set(connection.execute(text("SELECT id FROM letters")).scalars())
    assert written == {cause(number) for number in range(1, 5) if number != failing}
    outcomes = {each.event_id: each.outcome for each in ledger.attempts}
    assert outcomes == {
        cause(number): "failed" if number == failing else "succeeded" for number in range(1, 5)
    }
