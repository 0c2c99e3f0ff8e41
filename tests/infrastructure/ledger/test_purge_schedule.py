"""Purging beside the relay."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from kratos_sync.application.ports.operations import (
    How,
    Operation,
    OperationFilter,
    OperationRequest,
    Outcome,
)
from kratos_sync.infrastructure.ledger.operations import PostgresOperations
from kratos_sync.infrastructure.ledger.purge import PostgresPurge, PurgeSchedule
from tests.end_to_end.processes import Processes
from tests.infrastructure.ledger.rows import add_event
from tests.infrastructure.ledger.test_purge import A_MONTH, DAY, ids, run
from tests.suites.operations import make_older
from tests.waiting import DEADLINE_SECONDS, in_a_thread, until

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kratos_sync.infrastructure.schedule.FIRST_SECONDS", 0.01)


def running(
    engine: Engine, every: timedelta | None = HOUR, kept: timedelta | None = None
) -> AbstractContextManager[threading.Thread]:
    schedule = PurgeSchedule(
        PostgresPurge(engine),
        A_MONTH,
        every,
        operations=PostgresOperations(engine),
        operations_kept=kept,
        look_seconds=0.01,
    )
    return in_a_thread(schedule.run)


def purges_ended(engine: Engine) -> int:
    with engine.connect() as connection:
        ended = "SELECT count(ended_at) FROM kratos_sync.purges"
        return int(connection.execute(text(ended)).scalar_one())


def test_it_purges_at_first_and_again_when_it_is_time(engine: Engine) -> None:
    with running(engine):
        until(lambda: purges_ended(engine) == 1)
        add_event(engine, age=40 * DAY)
        run(engine, "UPDATE kratos_sync.purges SET started_at = now() - interval '2 h'")
        until(lambda: purges_ended(engine) == 2)
    assert ids(engine, "events") == set()


def test_a_purge_that_removed_something_is_an_operation_and_no_other(engine: Engine) -> None:
    with running(engine):
        until(lambda: purges_ended(engine) == 1)
        assert recorded(engine) == []
        add_event(engine, age=40 * DAY)
        run(engine, "UPDATE kratos_sync.purges SET started_at = now() - interval '2 h'")
        until(lambda: purges_ended(engine) == 2)
    (operation,) = recorded(engine)
    assert (operation.operation, operation.by, operation.how) == ("purge", "relay", How.SCHEDULE)
    assert (operation.outcome, operation.done) == (Outcome.COMPLETED, 1)
    assert operation.result == {"events": 1, "attempts": 0}
    assert operation.scope == {
        "events_older_than": (30 * DAY).total_seconds(),
        "attempts_older_than": (30 * DAY).total_seconds(),
    }


def test_operations_are_kept_for_ever_or_for_as_long_as_is_said(engine: Engine) -> None:
    for age in (2 * DAY, 8 * DAY):
        begun = PostgresOperations(engine).begin(OperationRequest("sync", "ada", How.CLI), uuid4())
        make_older(engine, age, begun)
    with running(engine):
        until(lambda: purges_ended(engine) == 1)
    assert len(recorded(engine)) == 2
    run(engine, "UPDATE kratos_sync.purges SET started_at = now() - interval '2 h'")
    with running(engine, kept=7 * DAY):
        until(lambda: len(recorded(engine)) == 1)


def recorded(engine: Engine) -> Sequence[Operation]:
    return PostgresOperations(engine).newest(OperationFilter(), 9)


def test_never_is_never(engine: Engine) -> None:
    add_event(engine, age=40 * DAY)
    with running(engine, every=None) as thread:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
    assert len(ids(engine, "events")) == 1


def test_it_comes_back_when_the_ledger_does(engine: Engine) -> None:
    run(engine, "ALTER TABLE kratos_sync.purges RENAME TO away")
    with capture_logs() as logged, running(engine):
        until(lambda: "purge_abandoned" in [entry["event"] for entry in logged])
        run(engine, "ALTER TABLE kratos_sync.away RENAME TO purges")
        until(lambda: purges_ended(engine))
    assert purges_ended(engine) == 1


def test_what_it_removed_is_logged(engine: Engine) -> None:
    add_event(engine, age=40 * DAY)
    with capture_logs() as logged, running(engine):
        until(lambda: logged)
    assert [(entry["event"], entry["events"], entry["attempts"]) for entry in logged] == [
        ("purged", 1, 0)
    ]


def test_the_relay_purges_by_itself_as_the_settings_say(
    engine: Engine, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    kept, old = add_event(engine, age=6 * DAY), add_event(engine, age=8 * DAY)
    settings = {
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "EVENTS_RETENTION_DAYS": "7",
    }
    with Processes(tmp_path, settings) as processes:
        processes.start("relay", "relay")
        until(lambda: old not in ids(engine, "events"))
        assert processes.stop("relay") == {"relay": 0}
    assert ids(engine, "events") == {kept}
