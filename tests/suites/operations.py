"""The record of operations, in memory or on PostgreSQL, and time that passes for it."""

from datetime import timedelta
from typing import NamedTuple, Protocol

from sqlalchemy import Engine, text

from kratos_sync.application.ports.operations import Operations
from kratos_sync.infrastructure.ledger.operations import PostgresOperations
from tests.fakes.operations import InMemoryOperations

OLDER = text("""
    UPDATE kratos_sync.operations
    SET started_at = started_at - :time, seen_at = seen_at - :time, ended_at = ended_at - :time
    WHERE id = coalesce(CAST(:id AS bigint), id)
""")


class PassTime(Protocol):
    def __call__(self, time: timedelta) -> None: ...


class Record(NamedTuple):
    """``pass_time`` makes everything that was recorded until now as much older."""

    operations: Operations
    pass_time: PassTime


def record_in_memory() -> Record:
    operations = InMemoryOperations()
    return Record(operations, operations.pass_time)


def record_in_postgres(engine: Engine) -> Record:
    return Record(PostgresOperations(engine), lambda time: make_older(engine, time))


def make_older(engine: Engine, time: timedelta, operation_id: int | None = None) -> None:
    """What the trigger forbids: its table's owner switches it off meanwhile."""
    switch = "ALTER TABLE kratos_sync.operations {} TRIGGER keep_operations"
    with engine.begin() as connection:
        connection.execute(text(switch.format("DISABLE")))
        connection.execute(OLDER, {"time": time, "id": operation_id})
        connection.execute(text(switch.format("ENABLE")))
