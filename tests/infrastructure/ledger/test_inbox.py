"""Opening the inbox of a batch while others hold what it needs, whatever stands in its rows."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.pipeline.outcomes import CONFLICTS_IN_A_ROW
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.ledger.inbox import OPEN
from kratos_sync.infrastructure.postgres.connections import SETTINGS
from kratos_sync.infrastructure.postgres.engine import connect
from tests.domain.people import cause
from tests.infrastructure.statements import statements
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, person, updated

MANY = 20


@pytest.fixture
def ledger(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresLedger]:
    """A ledger with many pending deliveries, on connections that do not wait long for a lock."""
    monkeypatch.setitem(SETTINGS, "lock_timeout", "50")
    engine = connect(SecretStr(database_url), pool_size=2)
    ledger = PostgresLedger(engine)
    for number in range(1, MANY + 1):
        assert ledger.publish(updated(number, person(number)), WEBHOOK)
    yield ledger
    engine.dispose()


def work(ledger: PostgresLedger) -> None:
    """Deliver all in one batch."""
    ids = [cause(number) for number in range(1, MANY + 1)]
    deliver(Batch(SyncKratosIdentity, ids, ledger.unit_of_work(), ledger))


def test_a_batch_that_waits_for_a_locked_table_in_vain_is_not_split(
    ledger: PostgresLedger, engine: Engine
) -> None:
    with engine.begin() as holding:
        holding.execute(text("LOCK TABLE kratos_sync.events"))
        with statements() as seen, pytest.raises(ConcurrencyConflict):
            work(ledger)

    assert seen.count(OPEN.decode().strip()) == CONFLICTS_IN_A_ROW
    assert ledger.attempts == []
    work(ledger)
    assert {each.outcome for each in ledger.attempts} == {"succeeded"}


def test_a_row_that_somebody_holds_keeps_none_of_the_others(
    ledger: PostgresLedger, engine: Engine
) -> None:
    row = text("SELECT FROM kratos_sync.deliveries WHERE event_id = :id FOR UPDATE")
    with engine.begin() as holding:
        holding.execute(row, {"id": cause(7)})
        with statements() as seen:
            work(ledger)

    assert seen.count(OPEN.decode().strip()) == 1
    pending = [event_id for name, event_id in ledger.deliveries if name == SyncKratosIdentity.name]
    assert pending == [cause(7)]


@pytest.mark.parametrize("time", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
def test_a_time_beyond_the_calendar_keeps_no_event_from_being_read(
    ledger: PostgresLedger, engine: Engine, time: str
) -> None:
    change = text("UPDATE kratos_sync.events SET occurred_at = :time WHERE id = :id")
    with engine.begin() as connection:
        connection.execute(change, {"time": time, "id": cause(7)})

    work(ledger)

    assert len(ledger.attempts) == MANY
    assert {each.outcome for each in ledger.attempts} == {"succeeded"}
