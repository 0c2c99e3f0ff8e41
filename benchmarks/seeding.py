"""Filling the database by SQL with a great many people and events: copies of recorded ones.

The 200 recorded people are delivered by the service itself: their rows, as they stood after each
one's first webhook and after the last, and their events are then copied for others, each copy with
ids of its own. Copies are numbered; a person's id in copy n is a hash.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from benchmarks.filling import SYNC, events_of, fill, settle
from benchmarks.measures.deliver import until_none_is_left
from benchmarks.population import population
from benchmarks.stage import Stage

BEGUN = """
    CREATE SCHEMA benchmark;
    CREATE TABLE benchmark.begun AS SELECT * FROM kratos_sync.kratos_identities;
"""
COPIED = """
    CREATE TABLE benchmark.people AS SELECT * FROM kratos_sync.kratos_identities;
    CREATE TABLE benchmark.calls AS
    SELECT row_number() OVER (ORDER BY id) AS number, subject, payload::text AS payload,
           footprint
    FROM kratos_sync.events WHERE name = 'kratos_identity.updated';
    ANALYZE benchmark.begun, benchmark.people, benchmark.calls;
"""
STORED = """
    INSERT INTO kratos_sync.kratos_identities (id, {columns})
    SELECT md5(b.id::text || copy)::uuid, {columns}
    FROM generate_series(1, %(copies)s) AS copy, benchmark.begun b
"""
# Lined up in waves of so many copies, and in each in any order; ids rise in the order of the line.
LINED_UP = """
    CREATE TABLE benchmark.line AS
    SELECT uuidv7() AS id, number, copy
    FROM (SELECT number, copy
          FROM unnest(%(copies)s::int[]) WITH ORDINALITY AS copied (copy, place), benchmark.calls
          ORDER BY (place - 1) / %(wave)s, random()) AS line
"""
EVENTS = """
    INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source, footprint)
    SELECT line.id, 'kratos_identity.updated', copied.id, now(),
           replace(c.payload, c.subject::text, copied.id::text)::json, 'benchmark', c.footprint
    FROM benchmark.line
    JOIN benchmark.calls c USING (number)
    CROSS JOIN LATERAL (SELECT md5(c.subject::text || line.copy)::uuid AS id) AS copied
"""
DELIVERIES = """
    INSERT INTO kratos_sync.deliveries (event_id, consumer, subject, owed_at, due_at, footprint)
    SELECT id, %(consumer)s, subject, due_at, due_at, footprint
    FROM (SELECT id, subject, footprint,
                 now() - (count(*) OVER () - row_number() OVER (ORDER BY id)) * interval '1 ms'
                 AS due_at
          FROM kratos_sync.events) AS waiting
"""


@dataclass(frozen=True)
class Seed:
    """What is to be in the database: people stored, and waves of events of them and of others."""

    stored: int
    waves: int
    wave_events: int


@dataclass(frozen=True)
class Seeded:
    """What is there: how many events in a wave, and which copies the first wave is about."""

    wave_events: int
    first_wave: Sequence[int]


def remember_templates(stage: Stage) -> None:
    """Once: deliver what was recorded of 200 people, and keep their rows and events."""
    url = stage.postgres.url
    with stage.deployed() as service, psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT to_regclass('benchmark.people')").fetchone() != (None,):
            return
        calls = population(200).calls
        firsts = list({call.person: call for call in reversed(calls)}.values())
        others = [call for call in calls if call not in firsts]
        service.start_workers()
        service.start_relay()
        for some, keep in ((firsts, BEGUN), (others, COPIED)):
            fill(url, events_of(some))
            until_none_is_left(service)
            connection.execute(keep)


def seed(url: str, wanted: Seed) -> Seeded:
    """Fill empty tables with about as much as is wanted."""
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE IF EXISTS benchmark.line")
        people = _count(connection, "people")
        calls = _count(connection, "calls")
        stored = wanted.stored // people
        wave = max(1, round(wanted.wave_events / calls))
        copies = copies_in_waves(stored, wave * wanted.waves)
        others = [n for n in column_names(connection, "kratos_identities") if n != "id"]
        columns = sql.SQL(", ").join(map(sql.Identifier, others))
        connection.execute(sql.SQL(STORED).format(columns=columns), {"copies": stored})
        connection.execute(LINED_UP, {"copies": copies, "wave": wave})
        connection.execute(EVENTS)
        connection.execute(DELIVERIES, {"consumer": SYNC})
    settle(url)
    return Seeded(wave * calls, copies[:wave])


def copies_in_waves(stored: int, count: int) -> list[int]:
    """So many copies: every second is stored, spread over all that are, and the rest are new."""
    return [
        1 + number * stored // count if stored and number % 2 == 0 else stored + 1 + number
        for number in range(count)
    ]


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
