from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.ports.history import IdentityHistory, error_type
from kratos_sync.infrastructure.ledger.dead_letters import PostgresDeadLetters
from kratos_sync.infrastructure.ledger.history import PostgresHistory
from kratos_sync.infrastructure.migrations import SchemaTooOld
from kratos_sync.infrastructure.postgres.engine import connect
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    SOMEBODY,
    add_delivery,
    add_event,
    add_identity,
    log_attempt,
)

EVERYTHING = 1_000


def history(engine: Engine, newest: int = EVERYTHING) -> IdentityHistory:
    found = PostgresHistory(engine).of(SOMEBODY, newest)
    assert found is not None
    return found


def test_an_unknown_identity_has_no_history(engine: Engine) -> None:
    add_identity(engine, uuid4())
    add_event(engine, subject=uuid4())
    assert PostgresHistory(engine).of(SOMEBODY, EVERYTHING) is None


def test_a_copy_without_events_is_known(engine: Engine) -> None:
    add_identity(engine, version=3)
    found = history(engine)
    assert found.identity is not None
    assert (found.identity.state, found.identity.version) == ("active", 3)
    assert (found.recorded, found.events) == (0, ())


@pytest.mark.parametrize("time", ["infinity", "-infinity", "20000-01-01"])
def test_an_event_of_a_time_beyond_the_calendar_is_listed_and_shown(
    engine: Engine, time: str
) -> None:
    event_id = add_event(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE kratos_sync.events SET occurred_at = :at"), {"at": time})

    assert [event.id for event in history(engine).events] == [event_id]
    assert PostgresDeadLetters(engine).event(event_id) is not None


def test_events_before_any_copy_are_known(engine: Engine) -> None:
    add_event(engine)
    assert history(engine).identity is None
    assert history(engine).recorded == 1


def test_a_tombstone_has_the_time_of_its_deletion(engine: Engine) -> None:
    deleted_at = datetime(2026, 7, 1, tzinfo=UTC)
    add_identity(engine, deleted_at=deleted_at)
    found = history(engine).identity
    assert found is not None
    assert found.deleted_at == deleted_at


def test_events_are_listed_oldest_first_and_only_of_this_identity(engine: Engine) -> None:
    newer = add_event(engine, name="identity.registered", source="SyncKratosIdentity")
    older = add_event(engine, age=A_MINUTE)
    add_event(engine, subject=uuid4())
    events = history(engine).events
    assert [event.id for event in events] == [older, newer]
    assert [event.name for event in events] == ["kratos_identity.updated", "identity.registered"]
    assert [event.source for event in events] == ["webhook", "SyncKratosIdentity"]


def test_of_many_events_the_newest_are_listed_and_all_are_counted(engine: Engine) -> None:
    ids = [add_event(engine, age=age * A_MINUTE) for age in (4, 3, 2, 1)]
    found = history(engine, newest=2)
    assert [event.id for event in found.events] == ids[-2:]
    assert found.recorded == 4


def test_each_consumers_attempts_stand_in_the_order_they_were_made(engine: Engine) -> None:
    event_id = add_event(engine)
    log_attempt(engine, "Greet", event_id, outcome="failed", error="KeyError: 'name'")
    log_attempt(engine, "Count", event_id)
    log_attempt(engine, "Greet", event_id, number=2)
    log_attempt(engine, "Greet", event_id, number=1)  # after a replay
    (event,) = history(engine).events
    count, greet = event.deliveries
    assert (count.consumer, greet.consumer) == ("Count", "Greet")
    assert [(a.number, a.outcome, a.error) for a in greet.attempts] == [
        (1, "failed", "KeyError: 'name'"),
        (2, "succeeded", None),
        (1, "succeeded", None),
    ]
    assert greet.outstanding is None


def test_a_pending_delivery_has_its_due_time_and_last_error(engine: Engine) -> None:
    event_id = add_delivery(engine, "Greet", attempts=1, due_in=A_MINUTE, last_error="KeyError")
    log_attempt(engine, "Greet", event_id, outcome="failed", error="KeyError")
    found = history(engine)
    ((greet,),) = [event.deliveries for event in found.events]
    assert greet.outstanding is not None
    assert greet.outstanding.attempts == len(greet.attempts) == 1
    assert timedelta() < greet.outstanding.due_at - found.at <= A_MINUTE
    assert greet.outstanding.error == "KeyError"
    assert not greet.outstanding.leased
    assert greet.outstanding.failed_at is None


def test_a_dead_letter_has_its_time(engine: Engine) -> None:
    add_delivery(engine, "Greet", attempts=12, failed_ago=A_MINUTE, last_error="KeyError")
    ((greet,),) = [event.deliveries for event in history(engine).events]
    assert greet.outstanding is not None
    assert greet.outstanding.failed_at is not None


def test_a_database_that_was_not_migrated_is_refused(empty_database_url: str) -> None:
    engine = connect(SecretStr(empty_database_url), pool_size=2)
    try:
        with pytest.raises(SchemaTooOld, match="kratos-sync migrate"):
            PostgresHistory(engine).of(UUID(int=0), EVERYTHING)
    finally:
        engine.dispose()


TRACEBACK = 'Traceback (most recent call last):\n  File "/app/greet.py", line 7, in consume\n'


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("UnknownEvent: kratos_identity.merged", "UnknownEvent"),
        (f"{TRACEBACK}    greet(name)\nKeyError: 'dalia@example.org'", "KeyError"),
        (f"{TRACEBACK}    greet(name)\n    ~~~~~^^^^^^\nStopIteration", "StopIteration"),
        (f"{TRACEBACK}    x\npydantic.ValidationError: 1 error\nemail\n  dalia: no", "pydantic.V"),
        (f"{TRACEBACK}    x\nKeyError: 1\n\nDuring…:\n\n{TRACEBACK}    x\na.B: 2", "a.B"),
        (f"{TRACEBACK}    x\ngreet.<locals>.Rude: you", "greet.<locals>.Rude"),
        (f"{TRACEBACK}    x\n… 90 characters cut …\ndalia:\n", "unknown error"),
        (f"{TRACEBACK}    x\ndalia@example.org", "unknown error"),
        ("", "unknown error"),
    ],
)
def test_the_type_of_an_error_is_found_without_its_message(error: str, kind: str) -> None:
    assert error_type(error).startswith(kind)
    assert "dalia" not in error_type(error)


def test_the_type_of_a_group_of_errors_is_that_of_its_last() -> None:
    error = (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "/app/greet.py", line 7, in consume\n'
        "  |     greet()\n"
        "  | ExceptionGroup: both dalia (1 sub-exception)\n"
        "  +-+---------------- 1 ----------------\n"
        "    | Traceback (most recent call last):\n"
        '    |   File "/app/greet.py", line 9, in greet\n'
        "    |     shout()\n"
        "    | OSError: dalia\n"
        "    +------------------------------------"
    )
    assert error_type(error) == "OSError"
