"""What a worker does with a message, whatever is in it and whatever is away."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from kratos_sync.domain.events import IdentityRegistered
from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.settings import Settings
from tests.environment import subscriptions
from tests.infrastructure.bus.conftest import Ledger, names_logged, new_event, on_each
from tests.infrastructure.bus.peeking import AnyBroker, left_behind
from tests.infrastructure.bus.working import declare_actor, message, working
from tests.waiting import DEADLINE_SECONDS, until

NOWHERE = "postgresql://postgres@127.0.0.1:9/nowhere"


def without_ledger(container: Container) -> Callable[..., None]:
    """What a thread of a worker calls that cannot reach PostgreSQL, and stops."""
    away = Container()
    away.settings.override(
        Settings(_env_file=None, database_url=NOWHERE, broker_url="redis://127.0.0.1:9/0")
    )
    away.broker.override(container.broker())
    stopped = threading.Event()
    stopped.set()
    return declare_actor(away, stopped)


@on_each
def test_every_consumer_has_a_queue_of_its_name(container: Container) -> None:
    declare_actor(container)

    queues = container.broker().get_declared_queues()
    assert queues == set(subscriptions().consumers)
    assert queues >= {
        "CountRegistrations",
        "DeleteFromKratos",
        "DeleteKratosIdentity",
        "FetchKratosIdentity",
        "ForgetIdentity",
        "SyncKratosIdentity",
    }


def test_a_message_has_its_events_consumed(container: Container, ledger: Ledger) -> None:
    events = [new_event() for _ in range(3)]
    ledger.record(*events)

    declare_actor(container)(
        **wire_format.write("SyncKratosIdentity", [event.id for event in events])
    )

    assert ledger.pending() == []
    rows = ledger.execute("SELECT id FROM kratos_sync.kratos_identities")
    assert {row[0] for row in rows} == {event.identity.id for event in events}


def test_after_many_deaths_a_message_has_each_event_consumed_alone_and_none_dispatched_again(
    container: Container, ledger: Ledger, engine: Engine
) -> None:
    events = [new_event() for _ in range(3)]
    ledger.record(*events)
    claim = PostgresClaims(engine, timedelta(seconds=30)).claim("SyncKratosIdentity", 10)
    perform = declare_actor(container, deaths=9)

    with capture_logs() as logs:
        perform(**wire_format.write("SyncKratosIdentity", claim.event_ids))

    assert [line["event_id"] for line in logs if line["event"] == "delivered"] == [
        str(event_id) for event_id in sorted(claim.event_ids)
    ]
    assert ledger.pending() == []


def test_what_a_smaller_batch_leaves_of_a_consumer_that_was_paused_is_released(
    container: Container, ledger: Ledger, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.record(*[new_event() for _ in range(3)])
    claim = PostgresClaims(engine, timedelta(seconds=30)).claim("SyncKratosIdentity", 10)
    perform = declare_actor(container, deaths=9)

    is_paused = Mock(side_effect=[False, True])
    monkeypatch.setattr(container.pauses(), "is_paused", is_paused)
    perform(**wire_format.write("SyncKratosIdentity", claim.event_ids))

    assert ledger.pending() == sorted(claim.event_ids)[1:]
    assert ledger.count("NOT leased AND due_at <= now()") == 2


def test_a_message_that_comes_again_changes_nothing(container: Container, ledger: Ledger) -> None:
    event = new_event()
    ledger.record(event)
    perform = declare_actor(container)
    for _ in range(3):
        perform(**wire_format.write("SyncKratosIdentity", [event.id]))

    assert ledger.succeeded() == [event.id]
    (row,) = ledger.execute("SELECT version FROM kratos_sync.kratos_identities")
    assert row[0] == 1


def test_a_message_that_two_workers_hold_at_once_takes_effect_once(
    container: Container, ledger: Ledger, engine: Engine
) -> None:
    now = datetime.now(UTC)
    event = IdentityRegistered(uuid7(), now, uuid4(), 1, {}, now)
    ledger.record(event)
    day = {"day": now.date()}
    ledger.execute("INSERT INTO kratos_sync.registrations_per_day VALUES (:day, 0)", **day)
    perform, message = declare_actor(container), wire_format.write("CountRegistrations", [event.id])
    threads = [threading.Thread(target=perform, kwargs=message) for _ in range(2)]

    def halted() -> int:
        waiting = ledger.execute(
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return len(waiting) + sum(not thread.is_alive() for thread in threads)

    with engine.begin() as holding:
        holding.execute(text("SELECT FROM kratos_sync.registrations_per_day FOR UPDATE"))
        for thread in threads:
            thread.start()
        until(lambda: halted() == 2)
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    (counted,) = ledger.execute("SELECT registrations FROM kratos_sync.registrations_per_day")
    assert counted[0] == 1
    assert ledger.succeeded() == [event.id]


def test_a_message_about_events_that_there_are_not_does_nothing(
    container: Container, ledger: Ledger
) -> None:
    with capture_logs() as logged:
        declare_actor(container)(**wire_format.write("SyncKratosIdentity", [uuid4()]))

    assert logged == []
    assert ledger.succeeded() == []


def test_an_unknown_consumers_message_is_dropped_and_its_delivery_stays(
    container: Container, ledger: Ledger
) -> None:
    event = new_event()
    ledger.record(event)
    ledger.execute("UPDATE kratos_sync.deliveries SET consumer = 'SendPostcard'")

    with capture_logs() as logged:
        declare_actor(container)(**wire_format.write("SendPostcard", [event.id]))

    assert logged == [
        {"event": "unknown_consumer", "log_level": "warning", "consumer": "SendPostcard"}
    ]
    assert ledger.pending("SendPostcard") == [event.id]
    assert ledger.succeeded() == []


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"version": 2, "consumer": "SyncKratosIdentity", "event_ids": []}, id="newer"),
        pytest.param({"number": 7}, id="something else"),
    ],
)
def test_an_unreadable_message_is_logged_and_dropped(
    container: Container, arguments: dict[str, Any]
) -> None:
    perform = declare_actor(container)
    with capture_logs() as logged:
        perform(**arguments)
        perform(1, **arguments)

    assert [line["event"] for line in logged] == ["garbage_dropped", "garbage_dropped"]


def test_a_ledger_that_is_away_is_logged_and_fails_nothing(container: Container) -> None:
    with capture_logs() as logged:
        without_ledger(container)(**wire_format.write("SyncKratosIdentity", [uuid4()]))

    assert names_logged(logged) == {"ledger_unavailable"}


def test_a_delivery_is_due_again_when_the_worker_could_not_reach_the_ledger(
    container: Container, ledger: Ledger, engine: Engine
) -> None:
    event = new_event()
    ledger.record(event)
    claims = PostgresClaims(engine, timedelta(minutes=10))
    assert claims.claim("SyncKratosIdentity", 10).event_ids == [event.id]
    lease = ledger.execute("SELECT due_at FROM kratos_sync.deliveries")

    without_ledger(container)(**wire_format.write("SyncKratosIdentity", [event.id]))

    assert ledger.execute("SELECT due_at FROM kratos_sync.deliveries") == lease
    assert claims.claim("SyncKratosIdentity", 10).event_ids == []
    ledger.execute("UPDATE kratos_sync.deliveries SET due_at = now()")
    assert claims.claim("SyncKratosIdentity", 10).event_ids == [event.id]
    assert ledger.count("attempts = 0 AND failed_at IS NULL") == 1


def test_what_nobody_foresaw_is_logged_by_its_type_and_place_alone(
    container: Container, ledger: Ledger
) -> None:
    ledger.execute("ALTER TABLE kratos_sync.deliveries RENAME TO parcels")

    with capture_logs() as logged:
        declare_actor(container)(**wire_format.write("SyncKratosIdentity", [uuid4()]))

    (line,) = logged
    assert ".py:" in line.pop("at")
    assert line == {
        "event": "batch_abandoned",
        "log_level": "error",
        "consumer": "SyncKratosIdentity",
        "error": "UndefinedTable",
    }


@on_each
def test_whatever_happens_inside_the_message_is_acknowledged(
    container: Container, ledger: Ledger, broker: AnyBroker
) -> None:
    event = new_event()
    ledger.record(event)
    declare_actor(container)
    sync = "SyncKratosIdentity"
    broker.enqueue_many(
        [
            message(sync, **wire_format.write("SendPostcard", [event.id])),
            message(sync, what="is this"),
            message(sync, **wire_format.write(sync, [uuid4()])),
            message(sync, **wire_format.write(sync, [event.id])),
        ]
    )
    with working(broker):
        until(lambda: ledger.succeeded() == [event.id] and not left_behind(broker))

    assert ledger.succeeded() == [event.id]
    assert left_behind(broker) == set()


def test_what_comes_for_a_paused_consumer_is_released(container: Container, ledger: Ledger) -> None:
    event = new_event()
    ledger.record(event)
    container.policies().pause("SyncKratosIdentity", by="ada", reason="a test")
    container.claims().claim("SyncKratosIdentity", 1)
    perform = declare_actor(container)
    container.pauses().start()
    try:
        until(lambda: container.pauses().is_paused("SyncKratosIdentity"))
        perform(**wire_format.write("SyncKratosIdentity", [event.id]))
    finally:
        container.pauses().stop()

    assert ledger.pending() == [event.id]
    assert ledger.count("NOT leased AND attempts = 0 AND due_at <= now()") == 1
