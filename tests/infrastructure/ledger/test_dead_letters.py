"""What failed for good: found, grouped and listed."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from kratos_sync.application.ports.dead_letters import DeadLetterFilter
from kratos_sync.infrastructure.ledger.dead_letters import PostgresDeadLetters
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    SOMEBODY,
    add_delivery,
    add_event,
    log_attempt,
)

EVERYTHING = DeadLetterFilter()
MANY = 1_000
TRACEBACK = 'Traceback (most recent call last):\n  File "/app/greet.py", line 7, in consume\n'


def fail(
    engine: Engine,
    consumer: str = "Greet",
    event_id: UUID | None = None,
    *,
    kind: str | None = "KeyError",
    shape: str | None = "'…'",
    ago: timedelta = A_MINUTE,
    error: str = "KeyError: 'dalia'",
) -> UUID:
    return add_delivery(
        engine,
        consumer,
        event_id,
        attempts=12,
        failed_ago=ago,
        last_error=error,
        error_type=kind,
        error_shape=shape,
    )


def found(engine: Engine, wanted: DeadLetterFilter) -> set[UUID]:
    letters = PostgresDeadLetters(engine).newest(wanted, MANY)
    assert PostgresDeadLetters(engine).count(wanted) == len(letters)
    return {letter.event_id for letter in letters}


def test_where_nothing_failed_there_are_no_groups(engine: Engine) -> None:
    add_delivery(engine, "Greet", attempts=3, last_error="KeyError: 1")
    assert PostgresDeadLetters(engine).groups(EVERYTHING, MANY).dead_letters == 0


def test_they_are_grouped_by_consumer_exception_and_shape(engine: Engine) -> None:
    for _ in range(3):
        fail(engine)
    fail(engine, shape="other")
    fail(engine, "Count")
    fail(engine, "Count", kind="ValueError")
    groups = PostgresDeadLetters(engine).groups(EVERYTHING, MANY)
    assert (groups.dead_letters, groups.groups_in_all) == (6, 4)
    assert [(g.consumer, g.exception, g.shape, g.dead_letters) for g in groups.groups] == [
        ("Greet", "KeyError", "'…'", 3),
        ("Count", "KeyError", "'…'", 1),
        ("Count", "ValueError", "'…'", 1),
        ("Greet", "KeyError", "other", 1),
    ]


def test_a_group_has_its_first_and_last_failure_and_an_example(engine: Engine) -> None:
    ids = {fail(engine, ago=3 * A_MINUTE), fail(engine, ago=A_MINUTE)}
    (group,) = PostgresDeadLetters(engine).groups(EVERYTHING, MANY).groups
    span = group.last_failed_at - group.first_failed_at
    assert abs(span - 2 * A_MINUTE) < timedelta(seconds=10)
    assert group.example_event_id in ids
    assert group.example_error == "KeyError: 'dalia'"


@pytest.mark.parametrize("shape", ["'…'", "Zoë is no int", "", None])
def test_the_filter_of_a_group_finds_the_group_and_what_it_is_of_now(
    engine: Engine, shape: str | None
) -> None:
    ids = {fail(engine, shape=shape), fail(engine, shape=shape)}
    fail(engine, shape="other")
    fail(engine, "Count", shape=shape)
    fail(engine, kind="ValueError", shape=shape)
    groups = PostgresDeadLetters(engine).groups(EVERYTHING, MANY).groups
    fail(engine, shape=shape, ago=timedelta())
    assert found(engine, groups[0].filter) == ids


def test_of_many_groups_the_largest_are_listed_and_all_are_counted(engine: Engine) -> None:
    for number in range(5):
        fail(engine, shape=str(number))
    fail(engine, shape="3")
    groups = PostgresDeadLetters(engine).groups(EVERYTHING, 2)
    assert [group.shape for group in groups.groups] == ["3", "0"]
    assert (groups.dead_letters, groups.groups_in_all) == (6, 5)


def test_a_filter_lets_in_only_what_it_names(engine: Engine) -> None:
    registered = add_event(engine, name="identity.registered")
    ours = fail(engine, "Greet", registered, kind="smtplib.SMTPError", ago=3 * A_MINUTE)
    fail(engine, "Count", registered)
    updated = fail(engine, "Greet")
    now = PostgresDeadLetters(engine).now()
    assert found(engine, EVERYTHING) == {ours, updated}
    for wanted in (
        DeadLetterFilter(event="identity.registered", consumer="Greet"),
        DeadLetterFilter(exception="smtplib.SMTPError"),
        DeadLetterFilter(exception="SMTPError"),
        DeadLetterFilter(until=now - 2 * A_MINUTE),
        DeadLetterFilter(event_id=ours, consumer="Greet"),
    ):
        assert found(engine, wanted) == {ours}, wanted
    assert found(engine, DeadLetterFilter(consumer="Greet", since=now - 2 * A_MINUTE)) == {updated}
    for wanted in (
        DeadLetterFilter(exception="Error"),
        DeadLetterFilter(event="identity"),
        DeadLetterFilter(consumer="Gree"),
    ):
        assert found(engine, wanted) == set(), wanted


def test_the_newest_come_first_and_no_more_than_asked_for(engine: Engine) -> None:
    ids = [fail(engine, ago=ago * A_MINUTE) for ago in (1, 2, 3)]
    letters = PostgresDeadLetters(engine).newest(EVERYTHING, 2)
    assert [letter.event_id for letter in letters] == ids[:2]
    letter = letters[0]
    assert (letter.consumer, letter.event, letter.identity_id, letter.attempts) == (
        "Greet",
        "kratos_identity.updated",
        SOMEBODY,
        12,
    )
    assert (letter.exception, letter.shape, letter.error) == (
        "KeyError",
        "'…'",
        "KeyError: 'dalia'",
    )


def test_a_dead_letter_whose_event_was_removed_is_listed_too(engine: Engine) -> None:
    event_id = fail(engine, event_id=uuid4())
    (letter,) = PostgresDeadLetters(engine).newest(EVERYTHING, MANY)
    assert (letter.event_id, letter.event) == (event_id, None)


def test_an_event_has_its_payload_and_every_attempt(engine: Engine) -> None:
    event_id = fail(engine)
    log_attempt(engine, "Greet", event_id, outcome="failed", error="KeyError: 1")
    log_attempt(engine, "Greet", event_id, number=2, outcome="gave_up", error="KeyError: 2")
    log_attempt(engine, "Count", event_id)
    event = PostgresDeadLetters(engine).event(event_id)
    assert event is not None
    assert (event.name, event.identity_id) == ("kratos_identity.updated", SOMEBODY)
    assert event.payload == '{"email": "dalia@example.org"}'
    count, greet = event.deliveries
    assert [attempt.outcome for attempt in greet.attempts] == ["failed", "gave_up"]
    assert greet.outstanding is not None
    assert greet.outstanding.failed_at is not None
    assert count.outstanding is None


def test_an_event_that_was_never_recorded_is_none(engine: Engine) -> None:
    assert PostgresDeadLetters(engine).event(uuid4()) is None
