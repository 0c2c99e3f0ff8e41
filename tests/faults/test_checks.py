"""The check from outside finds what is planted: lost, doubled and forgotten."""

from collections.abc import Iterator
from typing import NamedTuple
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from tests.faults.checks import Sort, what_is_wrong
from tests.faults.effects import CREATE
from tests.faults.kratos import Call

PERSON = "6f1d2b9e-3c43-4c0b-9d4a-0a3b1c2d3e4f"
TRIGGER = "0b9a7c1e-52a4-4d86-8d8e-7f6a5b4c3d2e"
HEARD, REGISTERED, CHANGED = (f"01890000-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))
CALL = Call(TRIGGER, PERSON, number=1, sent_at=100.0, answered_at=101.0, status=200)

ALL_WELL = f"""
    INSERT INTO kratos_sync.events
           (id, name, subject, occurred_at, payload, source, dedupe_key)
    VALUES ('{HEARD}', 'kratos_identity.updated', '{PERSON}', now(),
            '{{"identity": {{"updated_at": "2026-01-01T00:00:00Z",
                             "traits": {{"number": 1, "call": "{TRIGGER}"}}}}}}',
            'webhook', 'webhook:{TRIGGER}:0'),
           ('{REGISTERED}', 'identity.registered', '{PERSON}', now(), '{{}}', 'sync', NULL),
           ('{CHANGED}', 'identity.traits_changed', '{PERSON}', now(), '{{"version": 2}}',
            'sync', NULL);
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT event_id, consumer, 1, 'succeeded', now(), '0'
    FROM (VALUES ('{HEARD}'::uuid, 'SyncKratosIdentity'), ('{HEARD}', 'WriteEffect'),
                 ('{HEARD}', 'GetIntoTrouble'), ('{REGISTERED}', 'CountRegistrations'),
                 ('{CHANGED}', 'WriteFactEffect')) AS done (event_id, consumer);
    INSERT INTO fault_effects (event_id, consumer)
    VALUES ('{HEARD}', 'WriteEffect'), ('{HEARD}', 'GetIntoTrouble'),
           ('{CHANGED}', 'WriteFactEffect');
    INSERT INTO kratos_sync.kratos_identities (id, traits, synced_at, version)
    VALUES ('{PERSON}', '{{"number": 1}}', now(), 2);
    INSERT INTO kratos_sync.registrations_per_day (day, registrations) VALUES ('2026-01-01', 1);
"""
OWE = f"""
    INSERT INTO kratos_sync.deliveries (event_id, consumer, subject)
    VALUES ('{HEARD}', 'WriteEffect', '{PERSON}')
"""


class Planted(NamedTuple):
    """Something done to tables where all is well, and how the check must call it."""

    statement: str
    sort: Sort


PLANTED = {
    "an event gone": Planted(f"DELETE FROM kratos_sync.events WHERE id = '{HEARD}'", "lost"),
    "an event recorded again": Planted(
        "INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)"
        " SELECT gen_random_uuid(), name, subject, occurred_at, payload, source"
        f" FROM kratos_sync.events WHERE id = '{HEARD}'",
        "doubled",
    ),
    "a failure of nobody's": Planted(
        "INSERT INTO kratos_sync.attempts"
        " (event_id, consumer, number, outcome, started_at, duration, error)"
        f" VALUES ('{HEARD}', 'WriteEffect', 1, 'failed', now(), '0', 'OperationalError: lost')",
        "blamed",
    ),
    "an effect gone": Planted(
        "DELETE FROM fault_effects WHERE consumer = 'WriteEffect'",
        "lost",
    ),
    "a fact's effect gone": Planted(
        "DELETE FROM fault_effects WHERE consumer = 'WriteFactEffect'", "lost"
    ),
    "an effect doubled": Planted(
        f"INSERT INTO fault_effects (event_id, consumer) VALUES ('{HEARD}', 'GetIntoTrouble')",
        "doubled",
    ),
    "an effect of nothing": Planted(
        "INSERT INTO fault_effects VALUES (gen_random_uuid(), 'WriteEffect')",
        "doubled",
    ),
    "a success gone": Planted(
        "DELETE FROM kratos_sync.attempts WHERE consumer = 'SyncKratosIdentity'", "lost"
    ),
    "a success doubled": Planted(
        "INSERT INTO kratos_sync.attempts"
        " (event_id, consumer, number, outcome, started_at, duration)"
        " SELECT event_id, consumer, 2, outcome, started_at, duration FROM kratos_sync.attempts"
        " WHERE consumer = 'SyncKratosIdentity'",
        "doubled",
    ),
    "a delivery still owed": Planted(OWE, "forgotten"),
    "a dead letter": Planted(
        f"{OWE}; UPDATE kratos_sync.deliveries SET failed_at = now()", "forgotten"
    ),
    "a row outdated": Planted(
        "UPDATE kratos_sync.kratos_identities SET traits = '{\"number\": 0}'", "lost"
    ),
    "a registration not counted": Planted("DELETE FROM kratos_sync.registrations_per_day", "lost"),
    "a registration counted twice": Planted(
        "UPDATE kratos_sync.registrations_per_day SET registrations = 2", "doubled"
    ),
}


@pytest.fixture(scope="module")
def database(postgres_url: str, migrated_template: str) -> Iterator[psycopg.Connection]:
    """A database after one call of the webhook, where all is well."""
    name = f"faults_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}".encode())
        url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
        with psycopg.connect(url) as connection:
            connection.execute(CREATE.encode())
            connection.execute(ALL_WELL.encode())
            connection.commit()
            yield connection
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def tables(database: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Its tables; what is planted there is gone after the test."""
    yield database
    database.rollback()


def plant(tables: psycopg.Connection, *names: str) -> None:
    for name in names:
        tables.execute(PLANTED[name].statement.encode())


def test_where_all_is_well_nothing_is_wrong(tables: psycopg.Connection) -> None:
    assert what_is_wrong(tables, [CALL]) == []


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(tables: psycopg.Connection, name: str) -> None:
    plant(tables, name)
    assert PLANTED[name].sort in {wrong.sort for wrong in what_is_wrong(tables, [CALL])}


def test_what_is_owed_still_is_not_lost(tables: psycopg.Connection) -> None:
    plant(tables, "a delivery still owed", "an effect gone")
    tables.execute("DELETE FROM kratos_sync.attempts WHERE consumer = 'WriteEffect'")
    assert {wrong.sort for wrong in what_is_wrong(tables, [CALL])} == {"forgotten"}


@pytest.mark.parametrize("status", [None, 422, 503])
def test_a_call_that_kratos_gave_up_is_lost(tables: psycopg.Connection, status: int | None) -> None:
    given_up = Call("another", PERSON, number=2, sent_at=100.0, answered_at=193.0, status=status)
    [wrong] = what_is_wrong(tables, [CALL, given_up])
    assert (wrong.sort, wrong.at) == ("lost", 100.0)


def test_a_lost_call_is_laid_to_the_time_when_it_was_sent(tables: psycopg.Connection) -> None:
    lost = Call("another", PERSON, number=2, sent_at=200.0, answered_at=201.0, status=200)
    [wrong] = what_is_wrong(tables, [CALL, lost])
    assert (wrong.sort, wrong.at) == ("lost", 200.0)
