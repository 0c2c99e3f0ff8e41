"""Erasing a person: every table is searched for every text."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.erase import Erase, StillInFlight
from kratos_sync.application.ports.deletions import Erased
from kratos_sync.application.ports.replay import EventRange
from kratos_sync.domain.events import IMPERSONAL, IdentityDeleted
from kratos_sync.infrastructure.erasure import ErasureSchedule, PostgresErasures
from kratos_sync.infrastructure.ledger.history import PostgresHistory
from kratos_sync.infrastructure.ledger.operations import PostgresOperations
from kratos_sync.infrastructure.ledger.replay import PostgresRecordedEvents
from tests.infrastructure.erasure.life import TRACE, Life, Nosy, consumed_by
from tests.infrastructure.kratos.clock import Clock
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import subscribed
from tests.waiting import DEADLINE_SECONDS, in_a_thread, until

EVERYWHERE = ["attempts", "deliveries", "events", "identity_addresses", "kratos_identities"]


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


@pytest.fixture
def life(ledger: PostgresLedger) -> Life:
    somebody = Life(ledger)
    somebody.live()
    assert somebody.left() == EVERYWHERE
    return somebody


def erase(engine: Engine, identity_id: UUID, most_events: int = 2_000) -> Erased:
    process = Erase(PostgresErasures(engine, most_events), lambda: None)
    *_, last = process.run(identity_id, by="ada", reason="asked by letter")
    return last


class SayGoodbye(Consumer[IdentityDeleted]):
    """Fails whenever an identity is deleted, with an error that quotes the person."""

    name = "SayGoodbye"
    max_attempts = 1
    says = "nobody"

    def consume(self, event: IdentityDeleted) -> None:  # as every consumer
        """Fail, and quote."""
        raise RuntimeError(f"no letter paper for {self.says}")


def test_nothing_of_the_person_is_left_in_any_table(engine: Engine, life: Life) -> None:
    erased = erase(engine, life.id)

    assert life.left() == []
    assert erased.events > 5
    assert erased.deliveries >= 3
    assert erased.held == 0


def test_no_other_identity_is_erased(engine: Engine, ledger: PostgresLedger, life: Life) -> None:
    other = Life(ledger)
    other.live()
    before = whole(ledger, other)

    erase(engine, life.id)

    assert whole(ledger, other) == before
    assert other.left() == EVERYWHERE


def whole(ledger: PostgresLedger, life: Life) -> list[dict[str, Any]]:
    return [
        *ledger.query("SELECT id, payload::text, dedupe_key, trace_context FROM kratos_sync.events"
                      " WHERE subject = :who ORDER BY id", who=life.id),
        *ledger.query("SELECT * FROM kratos_sync.deliveries WHERE subject = :who"
                      " ORDER BY event_id, consumer", who=life.id),
        *ledger.query("SELECT a.* FROM kratos_sync.attempts a JOIN kratos_sync.events e"
                      " ON e.id = a.event_id WHERE subject = :who ORDER BY a.id", who=life.id),
    ]  # fmt: skip


def test_ids_times_and_the_fact_stay(engine: Engine, ledger: PostgresLedger, life: Life) -> None:
    before = ledger.query("SELECT id, name, recorded_at FROM kratos_sync.events ORDER BY id")

    erase(engine, life.id)

    history = PostgresHistory(engine).of(life.id, 1_000)
    assert history is not None
    assert history.erasure is not None
    assert (history.erasure.by, history.erasure.reason) == ("ada", "asked by letter")
    assert history.erasure.erased_at is not None
    assert history.identity is not None
    assert history.identity.deleted_at == history.identity.forgotten_at is not None
    after = ledger.query("SELECT id, name, recorded_at FROM kratos_sync.events ORDER BY id")
    assert [row for row in after if row in before] == before
    assert {event.name for event in history.events if event.erased_at is None} < IMPERSONAL
    outcomes = {
        attempt.outcome
        for event in history.events
        for delivery in event.deliveries
        for attempt in delivery.attempts
    }
    assert outcomes == {"succeeded", "failed", "gave_up", "erased"}


def test_consumers_receive_the_deletion_and_nothing_else(
    engine: Engine, ledger: PostgresLedger, life: Life
) -> None:
    with subscribed(ledger, IdentityDeleted, SayGoodbye):
        erase(engine, life.id)

        pending = ledger.query("SELECT consumer, subject FROM kratos_sync.deliveries")
        assert pending == [{"consumer": "SayGoodbye", "subject": life.id}]


def test_a_large_life_is_erased_in_steps(engine: Engine, life: Life) -> None:
    erased = erase(engine, life.id, most_events=2)

    assert life.left() == []
    assert erased.events > 5


def test_erasing_once_more_changes_nothing(engine: Engine, life: Life) -> None:
    erase(engine, life.id)
    first = PostgresErasures(engine).erasable(life.id)

    assert erase(engine, life.id) == Erased()

    again = PostgresErasures(engine).erasable(life.id)
    assert again == first
    assert (first.events, first.deliveries, first.kratos_identities) == (0, 0, 0)


def test_the_rows_that_would_be_erased_are_counted_first(engine: Engine, life: Life) -> None:
    found = PostgresErasures(engine).erasable(life.id)

    erased = erase(engine, life.id)

    assert (found.events, found.deliveries) == (erased.events, erased.deliveries)
    assert found.kratos_identities == 1
    assert found.is_known
    assert found.erasure is None


def test_an_erased_event_is_not_replayed(
    engine: Engine, ledger: PostgresLedger, life: Life
) -> None:
    erase(engine, life.id)
    events = PostgresRecordedEvents(engine)
    for identity_id in (None, life.id):
        stretch = EventRange(
            SyncKratosIdentity.name,
            ("kratos_identity.updated",),
            events.now() - timedelta(days=1),
            events.now(),
            identity_id,
        )
        assert events.count(stretch) == 0
        assert events.redeliver(stretch, None, 100).replayed == 0
    assert ledger.query("SELECT FROM kratos_sync.deliveries") == []


def due_now(ledger: PostgresLedger) -> None:
    ledger.query("UPDATE kratos_sync.erasures SET look_at = clock_timestamp()")


def scheduled(engine: Engine) -> AbstractContextManager[threading.Thread]:
    schedule = ErasureSchedule(
        PostgresErasures(engine), PostgresOperations(engine), look_seconds=0.05
    )
    return in_a_thread(schedule.run)


def test_a_late_webhook_is_erased_by_the_relay_whether_it_was_consumed_or_not(
    engine: Engine, ledger: PostgresLedger, life: Life
) -> None:
    erase(engine, life.id)
    life.receive()
    life.consume(SyncKratosIdentity)
    life.receive()
    assert life.left() == ["events"]

    with scheduled(engine):
        due_now(ledger)
        until(lambda: not life.left())

    assert ledger.query("SELECT FROM kratos_sync.deliveries") == []
    (row,) = ledger.query("SELECT traits, deleted_at FROM kratos_sync.kratos_identities")
    assert row["traits"] is None
    assert row["deleted_at"] is not None


def test_what_comes_after_is_looked_for_within_a_minute_and_later_within_an_hour(
    engine: Engine, ledger: PostgresLedger, life: Life
) -> None:
    erase(engine, life.id)
    waits = []
    for age in ("0", "10 min", "30 d"):
        ledger.query(
            "UPDATE kratos_sync.erasures SET asked_at = now() - CAST(:age AS interval)", age=age
        )
        PostgresErasures(engine).note([life.id], is_complete=True)
        (row,) = ledger.query("SELECT look_at - now() AS wait FROM kratos_sync.erasures")
        waits.append(round(row["wait"] / timedelta(minutes=1)))

    assert waits == [1, 10, 60]


def test_each_due_identity_is_claimed_by_one_caller(
    engine: Engine, ledger: PostgresLedger, life: Life
) -> None:
    erase(engine, life.id)
    due_now(ledger)

    assert PostgresErasures(engine).due(10) == [life.id]
    assert PostgresErasures(engine).due(10) == []


def test_the_text_of_a_later_failure_does_not_stay(
    engine: Engine, ledger: PostgresLedger, life: Life
) -> None:
    with subscribed(ledger, IdentityDeleted, SayGoodbye):
        erase(engine, life.id)
        SayGoodbye.says = life.sign
        life.consume(SayGoodbye)
    assert life.left() == ["attempts", "deliveries"]

    due_now(ledger)
    with scheduled(engine):
        until(lambda: not life.left())

    (row,) = ledger.query("SELECT failed_at, error_type FROM kratos_sync.deliveries")
    assert row["failed_at"] is not None
    assert row["error_type"] == "RuntimeError"


@contextmanager
def in_flight(engine: Engine, life: Life) -> Iterator[None]:
    """A worker is in the middle of the person's newest call."""
    with engine.connect() as connection:
        connection.execute(
            text("SELECT FROM kratos_sync.deliveries WHERE consumer = 'SyncKratosIdentity'"
                 " AND subject = :who FOR UPDATE"), {"who": life.id},
        )  # fmt: skip
        yield


def test_in_flight_deliveries_are_waited_for_and_not_for_ever(
    engine: Engine, ledger: PostgresLedger, life: Life
) -> None:
    clock = Clock()
    process = Erase(PostgresErasures(engine), lambda: None, clock, clock.pause)
    with in_flight(engine, life):
        with pytest.raises(StillInFlight, match="had 1 of it in flight for a minute"):
            list(process.run(life.id, by="ada", reason="asked"))
        assert life.left() == ["events"]
        (row,) = ledger.query(
            "SELECT erased_at, look_at < now() + '2 min' AS soon FROM kratos_sync.erasures"
        )
        assert row == {"erased_at": None, "soon": True}

    due_now(ledger)
    with scheduled(engine):
        until(lambda: not life.left())


def test_a_worker_that_fails_in_the_middle_of_it_leaves_nothing(
    engine: Engine, ledger: PostgresLedger, life: Life
) -> None:
    """It quotes the person in an attempt that is recorded after the erasure looked."""
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Nosy):
        name = "Slow"

        def consume(self, event: Any) -> None:
            entered.set()
            assert go_on.wait(DEADLINE_SECONDS)
            super().consume(event)

    with consumed_by(ledger, Slow):
        life.receive()
        worker = threading.Thread(target=life.consume, args=(Slow,))
        worker.start()
        assert entered.wait(DEADLINE_SECONDS)
        steps = Erase(PostgresErasures(engine), lambda: None).run(life.id, by="ada", reason="asked")
        while next(steps).held == 0:
            pass
        go_on.set()
        worker.join(DEADLINE_SECONDS)
        assert "attempts" in life.left()
        list(steps)

    assert life.left() == []


def test_a_copy_that_is_locked_for_long_is_a_clear_error_and_nothing_is_half_done(
    engine: Engine, life: Life
) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT FROM kratos_sync.kratos_identities FOR UPDATE"))
        conflicts = PostgresErasures(engine)
        with pytest.raises(Exception, match="55P03"), short_lock_timeout(engine):
            conflicts.begin(life.id, "ada", "asked")

    assert PostgresErasures(engine).erasable(life.id).erasure is None
    assert life.left() == EVERYWHERE


@contextmanager
def short_lock_timeout(engine: Engine) -> Iterator[None]:
    from sqlalchemy import event

    def shorten(connection: Any, *_: Any) -> None:
        connection.execute("SET lock_timeout = '100ms'")
        connection.commit()

    event.listen(engine, "checkout", shorten)
    try:
        yield
    finally:
        event.remove(engine, "checkout", shorten)


def test_a_role_with_the_grant_erases_only_what_was_requested(engine: Engine, life: Life) -> None:
    list(PostgresErasures(engine).erase([life.id]))

    assert life.left() == EVERYWHERE


def test_registrations_stay_counted(engine: Engine, ledger: PostgresLedger, life: Life) -> None:
    before = ledger.query("SELECT registrations FROM kratos_sync.registrations_per_day")

    erase(engine, life.id)
    life.consume(CountRegistrations)

    assert before == [{"registrations": 1}]
    assert ledger.query("SELECT registrations FROM kratos_sync.registrations_per_day") == before
    assert TRACE
