"""Quick events of a consumer with a batch size of 1 travel in one message."""

from uuid import UUID

import pytest

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.grouping import MOST_TOGETHER
from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import BrokerUnavailable
from kratos_sync.infrastructure.bus.relay import FIRST_BATCHES
from kratos_sync.infrastructure.container import Container
from tests.infrastructure.bus.conftest import Ledger, new_event, on_each
from tests.infrastructure.bus.peeking import AnyBroker
from tests.infrastructure.bus.test_relay import dispatched
from tests.infrastructure.bus.working import declare_actor

SYNC = SyncKratosIdentity.name


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyncKratosIdentity, "batch_size", 1)


def recorded(ledger: Ledger, events: int) -> list[UUID]:
    new = [new_event() for _ in range(events)]
    ledger.record(*new)
    return sorted(event.id for event in new)


@on_each
def test_the_first_message_is_divided_for_all_threads(
    container: Container, ledger: Ledger, broker: AnyBroker
) -> None:
    ids = recorded(ledger, 4)

    declare_actor(container)(**wire_format.write(SYNC, ids))

    assert ledger.pending() == ids[1:]
    assert dispatched(broker) == [[each] for each in ids[1:]]


def test_quick_events_are_consumed_together(
    container: Container, ledger: Ledger, broker: AnyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kratos_sync.application.grouping.LONGEST_SECONDS", 3600.0)
    monkeypatch.setattr("kratos_sync.application.pipeline.consuming.LONGEST_SECONDS", 3600.0)
    first, *others = recorded(ledger, 1 + MOST_TOGETHER + 2)
    perform = declare_actor(container)
    perform(**wire_format.write(SYNC, [first]))

    perform(**wire_format.write(SYNC, others))

    assert ledger.pending() == others[MOST_TOGETHER:]
    assert dispatched(broker) == [others[MOST_TOGETHER:]]
    rows = ledger.execute("SELECT count(DISTINCT xmin::text) FROM kratos_sync.kratos_identities")
    assert rows[0][0] == 2, "one commit for the first, and one for all others"


def test_without_the_broker_a_message_is_not_divided(
    container: Container, ledger: Ledger, broker: AnyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise BrokerUnavailable("away")

    ids = recorded(ledger, 3)
    perform = declare_actor(container)
    monkeypatch.setattr(broker, "enqueue_many", refuse)
    monkeypatch.setattr("kratos_sync.application.pipeline.consuming.LONGEST_SECONDS", 3600.0)

    perform(**wire_format.write(SYNC, ids))

    assert ledger.pending() == []


def test_what_no_time_was_left_for_is_due_at_once(
    container: Container, ledger: Ledger, broker: AnyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = recorded(ledger, 3)
    ledger.execute(
        "UPDATE kratos_sync.deliveries SET leased = true, due_at = now() + interval '1 minute'"
    )
    monkeypatch.setattr("kratos_sync.application.grouping.MOST_TOGETHER", 3)
    monkeypatch.setattr("kratos_sync.application.pipeline.consuming.LONGEST_SECONDS", -1.0)
    monkeypatch.setattr(
        "kratos_sync.infrastructure.bus.actor.EventTimes.fitting", lambda *_: len(ids)
    )

    declare_actor(container)(**wire_format.write(SYNC, ids))

    assert ledger.pending() == ids[1:]
    assert ledger.count(f"consumer = '{SYNC}' AND NOT leased AND due_at <= now()") == 2


def test_the_relay_sends_few_at_first_and_many_in_a_message(
    container: Container, ledger: Ledger, broker: AnyBroker
) -> None:
    recorded(ledger, 20)
    relay = container.relay()
    relay.turn()
    assert [len(each) for each in dispatched(broker)] == [FIRST_BATCHES]

    relay._windows[SYNC].size = 1_000
    ledger.execute("UPDATE kratos_sync.deliveries SET leased = false, due_at = now()")
    relay._windows[SYNC].dispatched(0, -1.0)
    relay.turn()

    assert [len(each) for each in dispatched(broker)][-1] == 20


def test_a_limit_of_how_many_are_consumed_at_once_keeps_one_event_a_message(
    container: Container, ledger: Ledger, broker: AnyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SyncKratosIdentity, "concurrency", 3)
    recorded(ledger, 5)

    container.relay().turn()

    assert [len(each) for each in dispatched(broker)] == [1, 1, 1]
