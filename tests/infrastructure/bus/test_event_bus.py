"""Publishing: recorded in one commit, and on its way at once."""

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.ledger.notifications import CHANNEL
from kratos_sync.infrastructure.postgres.engine import connect
from tests.infrastructure.bus.conftest import Ledger, new_event
from tests.infrastructure.bus.peeking import left_behind
from tests.suites.publishing import bus_of, publish
from tests.waiting import DEADLINE_SECONDS


def test_an_event_is_recorded_with_the_deliveries_of_its_consumers(
    container: Container, ledger: Ledger
) -> None:
    event = new_event()

    assert publish(container.event_bus(), event, Provenance("webhook", "key", "00-1-2-01"))

    assert ledger.pending() == [event.id]
    (row,) = ledger.execute(
        "SELECT id, name, subject, source, dedupe_key, trace_context FROM kratos_sync.events"
    )
    assert tuple(row) == (
        event.id,
        "kratos_identity.updated",
        event.identity.id,
        "webhook",
        "key",
        "00-1-2-01",
    )


def test_the_second_event_of_a_dedupe_key_is_not_recorded(
    container: Container, ledger: Ledger
) -> None:
    first, second = new_event(), new_event()

    assert publish(container.event_bus(), first, Provenance("webhook", "key"))
    assert not publish(container.event_bus(), second, Provenance("webhook", "key"))

    assert ledger.pending() == [first.id]


def test_publishing_asks_the_broker_for_nothing(container: Container, ledger: Ledger) -> None:
    publish(container.event_bus(), new_event(), Provenance("test"))

    assert len(ledger.pending()) == 1
    assert left_behind(container.broker()) == set()


def test_publishing_wakes_the_relay_and_a_duplicate_does_not(engine: Engine) -> None:
    woken: list[None] = []
    bus = bus_of(engine, lambda: woken.append(None))

    publish(bus, new_event(), Provenance("test", "key"))
    assert len(woken) == 1
    publish(bus, new_event(), Provenance("test", "key"))
    assert len(woken) == 1


def test_waking_the_relay_notifies_other_processes(container: Container, database_url: str) -> None:
    import psycopg

    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        publish(container.event_bus(), new_event(), Provenance("test"))
        notified = list(listener.notifies(timeout=DEADLINE_SECONDS, stop_after=1))

    assert [notice.channel for notice in notified] == [CHANNEL]


def test_a_ledger_that_is_away_is_said_to_be() -> None:
    engine = connect(SecretStr("postgresql://postgres@127.0.0.1:9/nowhere"), pool_size=1)
    woken: list[None] = []
    bus = bus_of(engine, lambda: woken.append(None))

    with pytest.raises(LedgerUnavailable):
        publish(bus, new_event(), Provenance("test"))
    assert woken == []
