"""History again into one consumer, out of the real ledger."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.dead_letters import DeadLetterFilter
from kratos_sync.application.ports.position import Position
from kratos_sync.application.ports.replay import EventRange, Step
from kratos_sync.application.replay import Progress, Replay
from kratos_sync.infrastructure.ledger import replay
from kratos_sync.infrastructure.ledger.replay import PostgresRecordedEvents
from tests.domain.people import ADA, GRACE
from tests.infrastructure.kratos.clock import Clock
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    SOMEBODY,
    add_delivery,
    add_event,
    log_attempt,
)
from tests.infrastructure.statements import statements
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, updated

SYNC = SyncKratosIdentity.name
UPDATED = "kratos_identity.updated"
HOUR = timedelta(hours=1)
MOST = 100
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


def event_range(
    ledger: PostgresLedger,
    since: timedelta = HOUR,
    until: timedelta = timedelta(),
    *,
    names: Sequence[str] = (UPDATED,),
    identity_id: UUID | None = None,
) -> EventRange:
    now = ledger.now
    return EventRange(SYNC, tuple(names), now - since, now - until, identity_id)


def run(ledger: PostgresLedger, wanted: EventRange, rate: int = 100_000) -> Progress | None:
    clock = Clock()
    replay = Replay(PostgresRecordedEvents(ledger.engine), lambda: None, clock, clock.pause)
    steps = list(replay.run(wanted, SyncKratosIdentity.batch_size, rate))
    return steps[-1] if steps else None


def pending(ledger: PostgresLedger) -> set[UUID]:
    return {event_id for consumer, event_id in ledger.deliveries if consumer == SYNC}


def deliver_all(ledger: PostgresLedger) -> None:
    deliver(Batch(SyncKratosIdentity, sorted(pending(ledger)), ledger.unit_of_work(), ledger))


def test_every_event_is_delivered_again_once(ledger: PostgresLedger) -> None:
    for number, who in enumerate((ADA, GRACE, ADA), start=1):
        ledger.publish(updated(number, who), WEBHOOK)
    events = pending(ledger)
    deliver_all(ledger)
    ledger.query("DELETE FROM kratos_sync.kratos_identities")

    progress = run(ledger, event_range(ledger))
    assert progress is not None
    assert (progress.replayed, progress.left) == (3, 0)
    assert pending(ledger) == events
    deliver_all(ledger)

    succeeded = [each.event_id for each in ledger.attempts if each.outcome == "succeeded"]
    assert sorted(succeeded) == sorted([*events, *events])
    rows = ledger.query("SELECT id FROM kratos_sync.kratos_identities")
    assert {row["id"] for row in rows} == {ADA, GRACE}


def test_only_the_range_is_replayed(engine: Engine, ledger: PostgresLedger) -> None:
    add_event(engine, age=4 * A_MINUTE)
    inside = {add_event(engine, age=3 * A_MINUTE), add_event(engine, age=2 * A_MINUTE)}
    add_event(engine, name="kratos_identity.gone", age=3 * A_MINUTE)
    add_event(engine, age=A_MINUTE / 2)
    wanted = event_range(ledger, 3.5 * A_MINUTE, A_MINUTE)

    assert PostgresRecordedEvents(engine).count(wanted) == 2
    run(ledger, wanted)

    assert pending(ledger) == inside


def test_the_stretch_begins_with_its_first_moment_and_ends_before_its_last(
    engine: Engine, ledger: PostgresLedger
) -> None:
    first, last = add_event(engine, age=2 * A_MINUTE), add_event(engine, age=A_MINUTE)
    times = {
        row["id"]: row["recorded_at"]
        for row in ledger.query("SELECT id, recorded_at FROM kratos_sync.events")
    }
    wanted = EventRange(SYNC, (UPDATED,), times[first], times[last])
    assert PostgresRecordedEvents(engine).count(wanted) == 1
    run(ledger, wanted)
    assert pending(ledger) == {first}


def test_of_one_identity_only_its_events_are_replayed(
    engine: Engine, ledger: PostgresLedger
) -> None:
    hers = {add_event(engine, age=age * A_MINUTE) for age in (1, 2, 3)}
    add_event(engine, subject=uuid4(), age=A_MINUTE)
    add_event(engine, age=2 * HOUR)
    wanted = event_range(ledger, identity_id=SOMEBODY)

    assert PostgresRecordedEvents(engine).count(wanted) == 3
    run(ledger, wanted)

    assert pending(ledger) == hers


@pytest.mark.parametrize("only", [{"source": "reconcile"}, {"hook": "login"}, {"trace_id": TRACE}])
@pytest.mark.parametrize("identity_id", [None, SOMEBODY])
def test_only_what_has_the_origin_is_replayed(
    engine: Engine, ledger: PostgresLedger, only: dict[str, str], identity_id: UUID | None
) -> None:
    add_event(engine, age=A_MINUTE)
    add_event(engine, age=A_MINUTE, hook="settings", trace_id="0" * 32)
    (name,) = only
    chosen = {add_event(engine, age=A_MINUTE, **only) for _ in range(2)}
    wanted = replace(event_range(ledger, identity_id=identity_id), **only)

    assert PostgresRecordedEvents(engine).count(wanted) == 2, name
    run(ledger, wanted)

    assert pending(ledger) == chosen


def test_pending_deliveries_and_dead_letters_are_left_as_they_are(
    engine: Engine, ledger: PostgresLedger
) -> None:
    error = "KeyError: 1"
    waiting = add_delivery(engine, SYNC, age=A_MINUTE, attempts=3, due_in=HOUR, last_error=error)
    dead = add_delivery(
        engine, SYNC, age=A_MINUTE, attempts=12, failed_ago=A_MINUTE, last_error=error
    )
    add_event(engine, age=A_MINUTE)
    before = ledger.deliveries

    progress = run(ledger, event_range(ledger))

    assert progress is not None
    assert (progress.replayed, progress.left) == (1, 2)
    after = ledger.deliveries
    assert len(after) == 3
    for event_id in (waiting, dead):
        assert after[SYNC, event_id] == before[SYNC, event_id]


def test_another_consumers_delivery_of_the_event_is_none_of_its_business(
    engine: Engine, ledger: PostgresLedger
) -> None:
    event_id = add_delivery(engine, "Greet", age=A_MINUTE)
    run(ledger, event_range(ledger))
    assert set(ledger.deliveries) == {("Greet", event_id), (SYNC, event_id)}


@pytest.mark.parametrize("identity_id", [None, SOMEBODY])
def test_each_step_goes_on_where_the_one_before_ended(
    engine: Engine, ledger: PostgresLedger, identity_id: UUID | None
) -> None:
    """Also among events of one transaction, which were all recorded at one time."""
    ids = [add_event(engine, age=A_MINUTE) for _ in range(5)]
    ledger.query("UPDATE kratos_sync.events SET recorded_at = now() - interval '1 minute'")
    wanted = event_range(ledger, identity_id=identity_id)
    events = PostgresRecordedEvents(engine)
    seen: list[UUID] = []
    step, position = Step(0, 0, None), None
    for most in (2, 2, 2, 2):
        step = events.redeliver(wanted, position, most)
        seen += [each for each in sorted(pending(ledger)) if each not in seen]
        position = step.position or position
    assert step == Step(0, 0, None)
    assert seen == sorted(ids)


def test_a_step_looks_through_so_many_events_for_a_rare_one(
    engine: Engine, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST_READ", 3)
    for age in (9, 8, 7, 6, 5):
        add_event(engine, name="identity.registered", age=age * A_MINUTE)
    rare = add_event(engine, age=A_MINUTE)
    step = PostgresRecordedEvents(engine).redeliver(event_range(ledger), None, 2)
    assert (step.replayed, step.position is not None) == (0, True)
    run(ledger, event_range(ledger))
    assert pending(ledger) == {rare}


def test_in_flight_are_due_and_leased_deliveries_up_to_a_bound(engine: Engine) -> None:
    for _ in range(3):
        add_delivery(engine, SYNC)
    add_delivery(engine, SYNC, leased=True, due_in=A_MINUTE)
    add_delivery(engine, SYNC, due_in=A_MINUTE, attempts=1)
    add_delivery(engine, SYNC, attempts=12, failed_ago=A_MINUTE)
    add_delivery(engine, "Greet")
    events = PostgresRecordedEvents(engine)
    assert events.in_flight(SYNC, MOST) == 4
    assert events.in_flight(SYNC, 2) == 2


def test_the_position_is_that_of_the_last_event(engine: Engine, ledger: PostgresLedger) -> None:
    add_event(engine, age=2 * A_MINUTE)
    last = add_event(engine, age=A_MINUTE)
    progress = run(ledger, event_range(ledger))
    (row,) = ledger.query("SELECT recorded_at FROM kratos_sync.events WHERE id = :id", id=last)
    assert progress is not None
    assert progress.position == Position(row["recorded_at"], last)


def test_no_purge_removes_what_is_being_redelivered(engine: Engine, ledger: PostgresLedger) -> None:
    add_event(engine, age=A_MINUTE)
    with statements() as seen:
        PostgresRecordedEvents(engine).redeliver(event_range(ledger), None, MOST)
    (lock,) = [n for n, statement in enumerate(seen) if "lock_shared" in statement]
    (inserted,) = [n for n, statement in enumerate(seen) if "INSERT INTO" in statement]
    assert lock < inserted


@pytest.mark.parametrize("few", [1, 100], ids=["many", "few"])
def test_of_dead_letters_all_are_redelivered_to_another_consumer(
    engine: Engine, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(replay, "MOST_READ", few)
    how = {"failed_ago": A_MINUTE, "error_type": "ValueError", "error_shape": "no int"}
    dead = {add_delivery(engine, "Greet", age=age * A_MINUTE, **how) for age in (1, 3, 5)}  # type: ignore[arg-type]  # fields
    add_delivery(engine, "Greet", age=2 * A_MINUTE, failed_ago=A_MINUTE, error_type="KeyError")
    add_event(engine, age=4 * A_MINUTE)
    group = DeadLetterFilter(consumer="Greet", exception="ValueError", shape="no int")
    wanted = replace(event_range(ledger), dead=group)

    assert PostgresRecordedEvents(engine).count(wanted) == 3
    run(ledger, wanted)

    assert pending(ledger) == dead


def test_only_these_events_of_an_outcome_are_redelivered(
    engine: Engine, ledger: PostgresLedger
) -> None:
    done, failed, other = (add_event(engine, age=A_MINUTE) for _ in range(3))
    log_attempt(engine, "Greet", done)
    log_attempt(engine, "Greet", failed, outcome="gave_up")
    log_attempt(engine, "Greet", other, outcome="gave_up")
    wanted = replace(
        event_range(ledger), event_ids=(done, failed), outcome="failed", of_consumer="Greet"
    )

    assert PostgresRecordedEvents(engine).count(wanted) == 1
    run(ledger, wanted)

    assert pending(ledger) == {failed}
