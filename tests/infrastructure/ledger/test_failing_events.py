"""What a failing event of a batch leaves behind, whatever it did: one failed attempt."""

from asyncio import CancelledError
from collections.abc import Sequence
from typing import ClassVar
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.ledger.inbox import PostgresUnitOfWork
from kratos_sync.infrastructure.postgres.transaction import Transaction
from tests.domain.people import ADA, GRACE, cause
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import MARY, WEBHOOK, subscribed, updated
from tests.waiting import until

PEOPLE = (ADA, GRACE, MARY)


class Notes:
    """A port: somebody's own table."""

    def note(self, who: UUID) -> None: ...


class NotesByExecute(Notes):
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def note(self, who: UUID) -> None:
        statement = text("INSERT INTO notes VALUES (:who)")
        self._transaction.execute(statement, {"who": who})


class NotesByRun(NotesByExecute):
    def note(self, who: UUID) -> None:
        self._transaction.run("INSERT INTO notes VALUES ($1)", [who])


class NotesOnAConnection(Notes):
    """Takes the connection once, and does with it what the transaction does not notice."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection

    def note(self, who: UUID) -> None:
        self._connection.execute(text("INSERT INTO notes VALUES (:who)"), {"who": who})


class Waits(NotesByExecute):
    """Idles in the transaction for longer than PostgreSQL lets it."""

    engine: ClassVar[Engine]

    def note(self, who: UUID) -> None:
        if who == GRACE:
            ((pid,),) = self._transaction.fetch("SELECT pg_backend_pid()", [])
            limit = "SET LOCAL idle_in_transaction_session_timeout = '50ms'"
            self._transaction.execute(text(limit), {})
            lives = text("SELECT FROM pg_stat_activity WHERE pid = :pid")
            autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
            with autocommit.connect() as other:
                until(lambda: other.execute(lives, {"pid": pid}).rowcount == 0)
        super().note(who)


class Panic(BaseException):
    """What an extension written in Rust raises where it would have crashed."""


class TakeNotes(Consumer[KratosIdentityUpdated]):
    """Notes everybody, and fails on Grace after that."""

    name = "TakeNotes"
    error: type[BaseException] | None = ValueError

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def consume(self, event: KratosIdentityUpdated) -> None:
        self._notes.note(event.identity.id)
        if event.identity.id == GRACE and self.error is not None:
            raise self.error


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    ledger = PostgresLedger(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (who uuid)"))
    return ledger


def note_all(
    ledger: PostgresLedger,
    notes: type[Notes],
    error: type[BaseException] | None,
    people: Sequence[UUID] = PEOPLE,
) -> None:
    """Deliver an event of each in one batch."""
    kind = type("TakeNotes", (TakeNotes,), {"error": error})
    with subscribed(ledger, KratosIdentityUpdated, kind):
        for number, who in enumerate(people, start=1):
            assert ledger.publish(updated(number, who), WEBHOOK)
    factory = ConsumerFactory([kind], {Notes: notes})
    unit = PostgresUnitOfWork(ledger.engine, factory, wake_relay=lambda: None)
    deliver(Batch(kind, [cause(n) for n in range(1, len(people) + 1)], unit, ledger))


def outcomes(ledger: PostgresLedger) -> dict[UUID, str]:
    assert len(ledger.attempts) == len({each.event_id for each in ledger.attempts})
    return {each.event_id: each.outcome for each in ledger.attempts}


def noted(ledger: PostgresLedger) -> set[UUID]:
    rows = [row["who"] for row in ledger.query("SELECT who FROM notes")]
    assert len(rows) == len(set(rows))
    return set(rows)


@pytest.mark.parametrize("notes", [NotesByExecute, NotesByRun, NotesOnAConnection])
def test_what_it_wrote_is_undone_however_it_wrote_it(
    ledger: PostgresLedger, notes: type[Notes]
) -> None:
    note_all(ledger, notes, ValueError)

    assert noted(ledger) == {ADA, MARY}
    assert outcomes(ledger) == {cause(1): "succeeded", cause(2): "failed", cause(3): "succeeded"}


@pytest.mark.parametrize(
    "error", [SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError, Panic, RuntimeError]
)
def test_whatever_it_raised_it_has_failed_and_no_other_event_has(
    ledger: PostgresLedger, error: type[BaseException]
) -> None:
    note_all(ledger, NotesByExecute, error)

    assert outcomes(ledger) == {cause(1): "succeeded", cause(2): "failed", cause(3): "succeeded"}


@pytest.mark.parametrize("people", [PEOPLE, (MARY, GRACE)])
def test_a_consumer_that_idles_until_the_connection_is_closed_has_failed(
    ledger: PostgresLedger, people: Sequence[UUID]
) -> None:
    Waits.engine = ledger.engine
    note_all(ledger, Waits, None, people)

    failed = [event_id for event_id, outcome in outcomes(ledger).items() if outcome == "failed"]
    assert failed == [cause(2)]
    assert noted(ledger) == set(people) - {GRACE}
