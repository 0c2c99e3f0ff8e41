"""What PostgreSQL itself does here with the same rows, when nothing decides anything.

For each event its row, and the row of its person: by COPY, everything at once; and in batches as
our consumer does it, a transaction each, by one prepared statement for either table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.seeding import Seed, column_names, remember_templates, seed
from benchmarks.stage import Stage

BATCH = 100
TABLES = """
    DROP TABLE IF EXISTS benchmark.events, benchmark.kratos_identities;
    CREATE TABLE benchmark.events (LIKE kratos_sync.events INCLUDING ALL);
    CREATE TABLE benchmark.kratos_identities (LIKE kratos_sync.kratos_identities INCLUDING ALL);
"""
RECORDED = "SELECT {columns} FROM kratos_sync.events AS t ORDER BY id"
# Of each event's person a row as it stands in the end; the person's own id comes first.
PEOPLE = """
    SELECT e.subject::text, {columns}
    FROM kratos_sync.events e
    JOIN benchmark.line ON line.id = e.id
    JOIN benchmark.calls c USING (number)
    JOIN benchmark.people t ON t.id = c.subject
    ORDER BY e.id
"""
Rows = list[tuple[str | None, ...]]


@dataclass(frozen=True)
class Table:
    """Rows to be written, as text."""

    name: str
    columns: Sequence[str]
    rows: Rows

    @property
    def identifier(self) -> sql.Identifier:
        """Where they are written to."""
        return sql.Identifier("benchmark", self.name)

    @property
    def listed(self) -> sql.Composed:
        """The columns' names, with commas."""
        return sql.SQL(", ").join(map(sql.Identifier, self.columns))


def limit(stage: Stage, events: int) -> dict[str, Any]:
    """Events a second, each way, on one connection."""
    remember_templates(stage)
    with stage.deployed() as service:
        url = service.database_url
        seed(url, Seed(stored=0, waves=1, wave_events=events))
        with psycopg.connect(url) as connection:
            names = column_names(connection, "events")
            recorded = Table("events", names, _read(connection, RECORDED, names))
            names = column_names(connection, "kratos_identities")
            others = [name for name in names if name != "id"]
            people = Table("kratos_identities", ["id", *others], _read(connection, PEOPLE, others))
    with psycopg.connect(url, autocommit=True) as connection:
        copied = _by_copy(connection, recorded, people)
        stated = _by_statement(connection, recorded, people)
    return {
        "events": len(recorded.rows),
        "batch": BATCH,
        "copy_rate": round(len(recorded.rows) / copied, 1),
        "statement_rate": round(len(recorded.rows) / stated, 1),
    }


def _by_copy(connection: psycopg.Connection, recorded: Table, people: Table) -> float:
    _prepare(connection)
    began = perf_counter()
    each_once = Table(
        people.name, people.columns, list({row[0]: row for row in people.rows}.values())
    )
    with connection.transaction(), connection.cursor() as cursor:
        for table in (recorded, each_once):
            copying = sql.SQL("COPY {} ({}) FROM STDIN").format(table.identifier, table.listed)
            with cursor.copy(copying) as copy:
                for row in table.rows:
                    copy.write_row(row)
    return perf_counter() - began


def _by_statement(connection: psycopg.Connection, recorded: Table, people: Table) -> float:
    insert = sql.SQL("INSERT INTO {} ({}) VALUES ({})")
    values = {
        table.name: insert.format(
            table.identifier,
            table.listed,
            sql.SQL(", ").join(sql.Placeholder() * len(table.columns)),
        )
        for table in (recorded, people)
    }
    upsert = sql.SQL("{} ON CONFLICT (id) DO UPDATE SET ({}) = ROW ({})").format(
        values[people.name],
        people.listed,
        sql.SQL(", ").join(sql.Identifier("excluded", name) for name in people.columns),
    )
    _prepare(connection)
    began = perf_counter()
    for start in range(0, len(recorded.rows), BATCH):
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(values[recorded.name], recorded.rows[start : start + BATCH])
            cursor.executemany(upsert, people.rows[start : start + BATCH])
    return perf_counter() - began


def _prepare(connection: psycopg.Connection) -> None:
    connection.execute(TABLES)
    connection.execute("CHECKPOINT")


def _read(connection: psycopg.Connection, query: str, columns: Sequence[str]) -> Rows:
    as_text = [sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in columns]
    reading = sql.SQL(query).format(columns=sql.SQL(", ").join(as_text))
    return connection.execute(reading).fetchall()
