"""Hook activity, added up by many processes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.hook_log import MOST_LABELS, Calls, HookActivity
from kratos_sync.infrastructure.ledger.hook_activity import PostgresHookLog, hook_activity

NOW, HOUR = timedelta(), timedelta(hours=1)
AGE = text("SELECT label, clock_timestamp() - last_at FROM kratos_sync.hooks_heard")


@pytest.fixture
def log(database_url: str) -> PostgresHookLog:
    return PostgresHookLog(SecretStr(database_url))


@pytest.fixture
def database(database_url: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def run(log: PostgresHookLog, *steps: Callable[[], Awaitable[object]]) -> None:
    """On one event loop, as a process has it."""

    async def all_of_them() -> None:
        for step in steps:
            await step()
        await log.stop()

    asyncio.run(all_of_them())


def note(log: PostgresHookLog, *calls: Calls) -> None:
    run(log, lambda: log.note(calls))


def activity(engine: Engine) -> Mapping[str, HookActivity]:
    with engine.connect() as connection:
        return {hook.label: hook for hook in hook_activity(connection)}


def numbers(engine: Engine) -> dict[str, int]:
    return {label: hook.calls for label, hook in activity(engine).items()}


def test_calls_add_up_hook_by_hook(log: PostgresHookLog, engine: Engine) -> None:
    note(log, Calls("login", 3, NOW), Calls("", 1, NOW))
    note(log, Calls("login", 4, NOW))
    assert numbers(engine) == {"login": 7, "": 1}


def test_the_time_is_the_databases(log: PostgresHookLog, engine: Engine) -> None:
    note(log, Calls("login", 1, HOUR))
    with engine.connect() as connection:
        ((_, age),) = connection.execute(AGE)
    assert HOUR <= age < HOUR + timedelta(minutes=1)


def test_a_call_of_before_moves_nothing_back(log: PostgresHookLog, engine: Engine) -> None:
    note(log, Calls("login", 1, NOW))
    first = activity(engine)["login"]
    note(log, Calls("login", 1, HOUR))
    assert activity(engine)["login"] == first._replace(calls=2)


def test_a_call_at_a_time_to_come_hides_no_later_one(log: PostgresHookLog, engine: Engine) -> None:
    note(log, Calls("login", 1, NOW))
    with engine.begin() as connection:
        connection.execute(text("UPDATE kratos_sync.hooks_heard SET last_at = last_at + '366 d'"))
    note(log, Calls("login", 1, NOW))
    with engine.connect() as connection:
        ((_, age),) = connection.execute(AGE)
    assert NOW <= age < HOUR


def test_the_first_call_is_remembered(log: PostgresHookLog, engine: Engine) -> None:
    note(log, Calls("login", 1, HOUR))
    note(log, Calls("login", 1, NOW))
    hook = activity(engine)["login"]
    assert hook.last_at - hook.first_at > timedelta(minutes=59)


def test_a_time_beyond_the_calendar_keeps_no_hook_from_being_read(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO kratos_sync.hooks_heard VALUES ('odd', '-infinity', 'infinity', 30)")
        )

    assert activity(engine)["odd"].calls == 30


def test_labels_beyond_the_hundredth_are_not_taken_and_the_others_go_on(
    log: PostgresHookLog, engine: Engine
) -> None:
    note(log, *(Calls(f"{number:03}", 1, NOW) for number in range(MOST_LABELS - 1)))
    note(log, Calls("000", 1, NOW), Calls("new", 1, NOW), Calls("newer", 1, NOW))
    assert len(activity(engine)) == MOST_LABELS
    assert numbers(engine)["000"] == 2
    assert {"new", "newer"} & numbers(engine).keys() == {"new"}


def test_processes_that_add_up_at_once_lose_nothing(database_url: str, engine: Engine) -> None:
    async def scenario() -> None:
        logs = [PostgresHookLog(SecretStr(database_url)) for _ in range(4)]
        there = [Calls(f"hook {number}", 1, NOW) for number in range(20)]
        for _ in range(5):
            await asyncio.gather(
                *(each.note(there if i % 2 else there[::-1]) for i, each in enumerate(logs))
            )
        for each in logs:
            await each.stop()

    asyncio.run(scenario())
    assert set(numbers(engine).values()) == {20}


def test_before_the_table_is_there_it_is_unavailable_and_then_it_is_not(
    log: PostgresHookLog, engine: Engine, database: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    async def refused() -> None:
        with pytest.raises(LedgerUnavailable):
            await log.note([Calls("login", 1, NOW)])

    async def migrated() -> None:
        database.execute("ALTER TABLE kratos_sync.later RENAME TO hooks_heard")

    database.execute("ALTER TABLE kratos_sync.hooks_heard RENAME TO later")
    run(log, refused, migrated, lambda: log.note([Calls("login", 1, NOW)]))
    assert numbers(engine) == {"login": 1}


def test_a_connection_that_was_lost_is_made_anew(
    log: PostgresHookLog, engine: Engine, database: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    async def cut() -> None:
        database.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    async def until_noted() -> None:
        # A loss may be noticed only by asking.
        with suppress(LedgerUnavailable):
            return await log.note([Calls("login", 1, NOW)])
        return await log.note([Calls("login", 1, NOW)])

    run(log, lambda: log.note([Calls("login", 1, NOW)]), cut, until_noted)
    assert numbers(engine) == {"login": 2}


def test_without_a_database_it_is_unavailable() -> None:
    nowhere = PostgresHookLog(SecretStr("postgresql://ada:secret@127.0.0.1:1/nothing"))
    with pytest.raises(LedgerUnavailable) as caught:
        note(nowhere, Calls("login", 1, NOW))
    assert "secret" not in str(caught.value)
