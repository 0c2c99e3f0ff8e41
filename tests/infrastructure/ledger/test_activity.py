"""What happens at the moment, read from a real ledger."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from kratos_sync.application.ports.activity import ActivityFilter, Position
from kratos_sync.infrastructure.ledger import activity
from kratos_sync.infrastructure.ledger.activity import PostgresActivity
from tests.infrastructure.ledger.rows import A_MINUTE, SOMEBODY, add_event, log_attempt

ALL = ActivityFilter()
TRACEBACK = 'Traceback:\n  File "mail.py", line 1\nsmtplib.SMTPDataError: dalia@example.org refused'


def an_hour_before(position: Position) -> Position:
    return Position(position.at - 60 * A_MINUTE, 0)


def test_an_empty_ledger_has_a_position(engine: Engine) -> None:
    assert PostgresActivity(engine).position().attempt == 0


def test_the_newest_come_first_and_no_more_than_asked_for(engine: Engine) -> None:
    ledger = PostgresActivity(engine)
    after = an_hour_before(ledger.position())
    for minutes in (3, 1, 2):
        add_event(engine, age=minutes * A_MINUTE, name=f"event.{minutes}")
        log_attempt(engine, f"consumer {minutes}")

    assert [each.name for each in ledger.events(after.at, ALL, 2)] == ["event.1", "event.2"]
    consumers = [each.consumer for each in ledger.attempts(0, ALL, 2)]
    assert consumers == ["consumer 2", "consumer 1"]
    newest = ledger.position().attempt
    assert [each.id for each in ledger.attempts(newest - 1, ALL, 9)] == [newest]


def test_of_an_attempt_the_event_and_the_type_of_its_error_are_known(engine: Engine) -> None:
    event_id = add_event(engine, name="identity.registered")
    took = timedelta(seconds=2)
    log_attempt(
        engine, "Mail", event_id, number=3, outcome="failed", error=TRACEBACK, duration=took
    )

    (seen,) = PostgresActivity(engine).attempts(0, ALL, 9)

    assert (seen.event_id, seen.event, seen.identity_id) == (
        event_id,
        "identity.registered",
        SOMEBODY,
    )
    assert (seen.consumer, seen.number, seen.outcome, seen.duration) == ("Mail", 3, "failed", took)
    assert seen.error_type == "smtplib.SMTPDataError"
    assert "dalia" not in repr(seen)


def test_an_attempt_of_an_event_that_was_removed_is_seen(engine: Engine) -> None:
    log_attempt(engine, "Mail")

    (seen,) = PostgresActivity(engine).attempts(0, ALL, 9)

    assert (seen.event, seen.identity_id, seen.error_type) == (None, None, None)


def test_what_an_operator_said_is_no_type_of_an_error(engine: Engine) -> None:
    log_attempt(engine, "Mail", outcome="discarded", error="Discarded by ada: dalia is gone")

    (seen,) = PostgresActivity(engine).attempts(0, ALL, 9)

    assert seen.error_type is None


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (ALL, [4, 3, 2, 1]),
        (ActivityFilter(consumer="Mail"), [3, 1]),
        (ActivityFilter(event="identity.registered"), [2, 1]),
        (ActivityFilter(outcomes={"failed", "gave_up"}), [4, 3]),
        (ActivityFilter("Mail", "identity.deleted", {"gave_up"}), [3]),
        (ActivityFilter(consumer="Nobody"), []),
    ],
)
def test_attempts_match_every_part_of_a_filter(
    engine: Engine, wanted: ActivityFilter, numbers: list[int]
) -> None:
    for number, (consumer, event, outcome) in enumerate(
        [
            ("Mail", "identity.registered", "succeeded"),
            ("Count", "identity.registered", "succeeded"),
            ("Mail", "identity.deleted", "gave_up"),
            ("Count", "identity.deleted", "failed"),
        ],
        start=1,
    ):
        event_id = add_event(engine, name=event)
        log_attempt(engine, consumer, event_id, number=number, outcome=outcome)

    found = PostgresActivity(engine).attempts(0, wanted, 9)

    assert [each.number for each in found] == numbers


def test_events_match_by_their_name(engine: Engine) -> None:
    ledger = PostgresActivity(engine)
    after = an_hour_before(ledger.position()).at
    wanted = add_event(engine, name="identity.deleted")
    add_event(engine)

    found = ledger.events(after, ActivityFilter(event="identity.deleted"), 9)

    assert [each.id for each in found] == [wanted]


def test_what_happened_between_two_positions_is_counted(engine: Engine) -> None:
    ledger = PostgresActivity(engine)
    log_attempt(engine, "Mail")
    after = Position(an_hour_before(ledger.position()).at, ledger.position().attempt)
    add_event(engine)
    add_event(engine, age=120 * A_MINUTE)
    for consumer, outcome in (("Mail", "succeeded"), ("Mail", "succeeded"), ("Count", "failed")):
        log_attempt(engine, consumer, outcome=outcome)
    until = ledger.position()
    log_attempt(engine, "Mail")

    events, attempts = ledger.counted(after, until)

    assert events == 1
    assert attempts == {"Mail": {"succeeded": 2}, "Count": {"failed": 1}}


def test_no_more_rows_are_read_than_there_may_be(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "MOST_READ", 2)
    monkeypatch.setattr(activity, "MOST_COUNTED", 2)
    ledger = PostgresActivity(engine)
    after = an_hour_before(ledger.position())
    for consumer in ("Mail", "Count", "Count"):
        add_event(engine, name=consumer)
        log_attempt(engine, consumer)

    assert ledger.attempts(0, ActivityFilter(consumer="Mail"), 9) == []
    assert ledger.events(after.at, ActivityFilter(event="Mail"), 9) == []
    events, attempts = ledger.counted(after, ledger.position())
    assert (events, sum(sum(each.values()) for each in attempts.values())) == (2, 2)
