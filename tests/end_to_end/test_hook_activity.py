"""The api records which of Kratos' hooks called, and does without where it cannot."""

from pathlib import Path

import psycopg
from sqlalchemy import Engine

from kratos_sync.infrastructure.ledger.hook_activity import hook_activity
from tests.end_to_end.running_api import RunningApi
from tests.end_to_end.wire import call, identity

LABEL = "registration.after.password"


def send(api: RunningApi, label: str) -> int:
    return api.ask(call(identity(), f"X-Kratos-Hook: {label}")).status


def test_hook_activity_is_written_when_the_api_has_stopped(
    tmp_path: Path, database_url: str, engine: Engine
) -> None:
    with RunningApi.started(tmp_path, database_url) as api:
        assert [send(api, LABEL) for _ in range(3)] == [200] * 3
    with engine.connect() as connection:
        (hook,) = hook_activity(connection)
    assert (hook.label, hook.calls) == (LABEL, 3)
    assert hook.first_at <= hook.last_at


def test_without_the_table_the_api_goes_on(tmp_path: Path, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE kratos_sync.hooks_heard")
    with RunningApi.started(tmp_path, database_url) as api:
        assert send(api, LABEL) == 200
    (said,) = [line for line in api.log() if line["event"] == "hook_activity_not_written"]
    assert said["error"] == "psycopg.errors.UndefinedTable"
