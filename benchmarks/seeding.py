"""Filling the database by SQL with a great many people and events: copies of recorded ones.

The 200 recorded people are delivered by the service itself; their rows and events are then told of
others, each copy with ids of its own. Copies are numbered; a person's id in copy n is a hash.
"""

from dataclasses import dataclass

import psycopg
from psycopg import sql

from benchmarks.crowd import crowd, some_twice
from benchmarks.filling import SYNC, as_told, fill, settle
from benchmarks.measures.deliver import until_none_is_left
from benchmarks.stage import Stage

TEMPLATES = """
    CREATE SCHEMA IF NOT EXISTS benchmark;
    DROP TABLE IF EXISTS benchmark.people, benchmark.calls;
    CREATE TABLE benchmark.people AS SELECT * FROM kratos_sync.kratos_identities;
    CREATE TABLE benchmark.calls AS
    SELECT row_number() OVER (ORDER BY id) AS number, subject, payload::text AS payload
    FROM kratos_sync.events WHERE name = 'kratos_identity.updated';
    ANALYZE benchmark.people, benchmark.calls;
"""
STORED = """
    INSERT INTO kratos_sync.kratos_identities (id, {columns})
    SELECT md5(p.id::text || copy)::uuid, {columns}
    FROM generate_series(1, %(copies)s) AS copy, benchmark.people p
"""
# Lined up in waves of so many copies, and in each in any order; ids rise in the order of the line.
LINED_UP = """
    CREATE TABLE benchmark.line AS
    SELECT uuidv7() AS id, number, copy
    FROM (SELECT number, copy
          FROM generate_series(%(first)s::int, %(last)s::int) AS copy, benchmark.calls
          ORDER BY (copy - %(first)s) / %(wave)s, random()) AS line
"""
EVENTS = """
    INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)
    SELECT line.id, 'kratos_identity.updated', copied.id, now(),
           replace(c.payload, c.subject::text, copied.id::text)::json, 'benchmark'
    FROM benchmark.line
    JOIN benchmark.calls c USING (number)
    CROSS JOIN LATERAL (SELECT md5(c.subject::text || line.copy)::uuid AS id) AS copied
"""
DELIVERIES = """
    INSERT INTO kratos_sync.deliveries (event_id, consumer, subject, owed_at, due_at)
    SELECT id, %(consumer)s, subject, due_at, due_at
    FROM (SELECT id, subject,
                 now() - (count(*) OVER () - row_number() OVER (ORDER BY id)) * interval '1 ms'
                 AS due_at
          FROM kratos_sync.events) AS waiting
"""


@dataclass(frozen=True)
class Seed:
    """What is to be in the database: people stored, and waves of events of other people."""

    stored: int
    waves: int
    wave_events: int


def remember_templates(stage: Stage) -> None:
    """Deliver what was recorded of 200 people, and keep their rows and events as templates."""
    with stage.deployed() as service:
        recording = crowd(200)
        calls = some_twice(recording.calls, len(recording.calls), seed=1)
        fill(service.database_url, as_told(calls))
        service.start_workers()
        service.start_relay()
        until_none_is_left(service)
        with psycopg.connect(service.database_url) as connection:
            connection.execute(TEMPLATES)


def seed(url: str, wanted: Seed) -> int:
    """Fill empty tables; give how many events there are in a wave, about what was asked for."""
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE IF EXISTS benchmark.line")
        people = _count(connection, "people")
        calls = _count(connection, "calls")
        stored = wanted.stored // people
        wave = max(1, round(wanted.wave_events / calls))
        first, last = stored + 1, stored + wave * wanted.waves
        others = [n for n in column_names(connection, "kratos_identities") if n != "id"]
        columns = sql.SQL(", ").join(map(sql.Identifier, others))
        connection.execute(sql.SQL(STORED).format(columns=columns), {"copies": stored})
        connection.execute(LINED_UP, {"first": first, "last": last, "wave": wave})
        connection.execute(EVENTS)
        connection.execute(DELIVERIES, {"consumer": SYNC})
    settle(url)
    return wave * calls


def _count(connection: psycopg.Connection, table: str) -> int:
    counting = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("benchmark", table))
    rows: list[tuple[int]] = connection.execute(counting).fetchall()
    return rows[0][0]


def column_names(connection: psycopg.Connection, table: str) -> list[str]:
    """The columns of a table of the service, in their order."""
    names = connection.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'kratos_sync' AND table_name = %s ORDER BY ordinal_position",
        [table],
    ).fetchall()
    return [name for (name,) in names]
