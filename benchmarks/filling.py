"""Filling the ledger: by COPY with events that nobody has dispatched yet, or quickly by SQL."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import psycopg
from uuid_utils.compat import uuid7

from benchmarks.changes import FAILING_ONE_IN
from kratos_sync.application.footprint import footprint_of
from tests.recorded import Call

SYNC = "SyncKratosIdentity"
COPY_EVENTS = """
    COPY kratos_sync.events (id, name, subject, occurred_at, payload, source, footprint) FROM STDIN
"""
COPY_DELIVERIES = """
    COPY kratos_sync.deliveries
        (event_id, consumer, subject, owed_at, due_at, footprint, ordered) FROM STDIN
"""
APART = timedelta(milliseconds=1)
QUICK: Final = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "'16GB'"}
"""Settings while tables are filled."""
INDEXES: Final = """
    SELECT indexdef, indexname, tablename, conname IS NOT NULL
    FROM pg_indexes
    LEFT JOIN pg_constraint ON conname = indexname AND contype = 'p'
    WHERE schemaname = 'kratos_sync' AND tablename = ANY(%s) AND (conname IS NULL OR %s)
"""


@dataclass(frozen=True)
class Waiting:
    """An event to be recorded, and whether a consumer is meant to fail on it."""

    id: UUID
    subject: str
    payload: str
    fails: bool = False

    @property
    def footprint(self) -> int:
        """As the service would record it."""
        return footprint_of(self.payload.encode())


def events_of(calls: Sequence[Call]) -> list[Waiting]:
    """The events of these calls; none has the id of an event that is to fail."""
    return [Waiting(_id(fails=False), call.person, _payload(call)) for call in calls]


def garbage(calls: Sequence[Call]) -> list[Waiting]:
    """For each of these calls, one whose payload is no identity."""
    nothing = json.dumps({"identity": {"traits": "none"}})
    return [Waiting(_id(fails=True), call.person, nothing, fails=True) for call in calls]


def failing(calls: Sequence[Call]) -> list[Waiting]:
    """The events of these calls, with the ids of events that are to fail."""
    return [Waiting(_id(fails=True), call.person, _payload(call), fails=True) for call in calls]


def fill(
    url: str,
    events: Sequence[Waiting],
    consumers: Sequence[str] = (SYNC,),
    at: datetime | None = None,
    *,
    in_order: bool = False,
) -> None:
    """Record the events, due in this order, a thousand a second until now.

    They occurred `at` that time: by default now. ``in_order`` says that the consumers are ordered.
    """
    now = datetime.now(UTC)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        with cursor.copy(COPY_EVENTS) as copy:
            for event in events:
                name = "kratos_identity.updated"
                columns = (event.id, name, event.subject, at or now, event.payload, "benchmark")
                copy.write_row((*columns, event.footprint))
        with cursor.copy(COPY_DELIVERIES) as copy:
            for number, event in enumerate(events):
                due = now - APART * (len(events) - number)
                for consumer in consumers:
                    row = (event.id, consumer, event.subject, due, due, event.footprint, in_order)
                    copy.write_row(row)
    settle(url)


def settle(url: str, *tables: str) -> None:
    """Have PostgreSQL do now what it would else do while something is measured.

    In these tables; by default in those of events and deliveries.
    """
    named = ", ".join(f"kratos_sync.{table}" for table in tables or ("events", "deliveries"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"VACUUM (ANALYZE) {named}".encode())
        connection.execute("CHECKPOINT")


@contextmanager
def hurried(url: str) -> Iterator[None]:
    """Spare PostgreSQL what only a crash would need, while tables are filled."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in QUICK.items():
            connection.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
        connection.execute("SELECT pg_reload_conf()")
        yield
        connection.execute("ALTER SYSTEM RESET ALL")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CHECKPOINT")


@contextmanager
def without_indexes(url: str, *tables: str, keys: bool = False) -> Iterator[None]:
    """Build the tables' indexes afterwards, which is several times as quick; ``keys`` too."""
    with psycopg.connect(url, autocommit=True) as connection:
        indexes = connection.execute(INDEXES, [list(tables), keys]).fetchall()
        for _, name, table, is_key in indexes:
            alter = f"ALTER TABLE kratos_sync.{table} DROP CONSTRAINT {name}"
            drop = alter if is_key else f"DROP INDEX kratos_sync.{name}"
            connection.execute(drop.encode())
        yield
        connection.execute("SET maintenance_work_mem = '2GB'")
        for definition, name, table, is_key in indexes:
            connection.execute(definition.encode())
            if is_key:
                add = f"ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}"
                connection.execute(f"ALTER TABLE kratos_sync.{table} {add}".encode())


def _payload(call: Call) -> str:
    return call.body.decode()


def _id(*, fails: bool) -> UUID:
    while (uuid7_id := uuid7()).int % FAILING_ONE_IN == 0 and not fails:
        pass
    # A version 7's last bits are random: moved by less than the modulus, it stays one.
    return UUID(int=uuid7_id.int - uuid7_id.int % FAILING_ONE_IN) if fails else uuid7_id
