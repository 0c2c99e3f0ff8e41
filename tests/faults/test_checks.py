"""The check from outside finds what is planted: lost, doubled, disordered and pending."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from tests.faults.checks import Elsewhere, Sort, Spans, Wrong, what_is_wrong
from tests.faults.effects import CREATE, ELSEWHERE, FileElsewhere, effects_elsewhere
from tests.faults.kratos import Call

PERSON = "6f1d2b9e-3c43-4c0b-9d4a-0a3b1c2d3e4f"
TRIGGER = "0b9a7c1e-52a4-4d86-8d8e-7f6a5b4c3d2e"
RECEIVED, REGISTERED, CHANGED, RECEIVED_NEXT = (
    f"01890000-0000-7000-8000-00000000000{n}" for n in (1, 2, 3, 4)
)
CALL = Call(TRIGGER, PERSON, number=1, sent_at=100.0, answered_at=101.0, status=200)
NEXT_CALL = Call(str(uuid4()), PERSON, number=1, sent_at=102.0, answered_at=103.0, status=200)
ELSEWHERE_ONCE: Elsewhere = {UUID(RECEIVED): [101.5], UUID(RECEIVED_NEXT): [103.5]}

ALL_WELL = f"""
    INSERT INTO kratos_sync.events
           (id, name, subject, occurred_at, payload, source, dedupe_key)
    VALUES ('{RECEIVED}', 'kratos_identity.updated', '{PERSON}', now(),
            '{{"identity": {{"updated_at": "2026-01-01T00:00:00Z",
                             "traits": {{"number": 1, "call": "{TRIGGER}"}}}}}}',
            'webhook', 'webhook:{TRIGGER}:0'),
           ('{REGISTERED}', 'identity.registered', '{PERSON}', now(), '{{"version": 1}}',
            'sync', NULL),
           ('{CHANGED}', 'identity.traits_changed', '{PERSON}', now(), '{{"version": 2}}',
            'sync', NULL);
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT event_id, consumer, 1, 'succeeded', now(), '0'
    FROM (VALUES ('{RECEIVED}'::uuid, 'SyncKratosIdentity'), ('{RECEIVED}', 'WriteEffect'),
                 ('{RECEIVED}', 'GetIntoTrouble'), ('{REGISTERED}', 'CountRegistrations'),
                 ('{CHANGED}', 'WriteFactEffect'), ('{RECEIVED}', 'WriteElsewhere'),
                 ('{RECEIVED}', 'KeepOrder'), ('{REGISTERED}', 'KeepOrder'),
                 ('{CHANGED}', 'KeepOrder')) AS done (event_id, consumer);
    INSERT INTO fault_effects (event_id, consumer)
    VALUES ('{RECEIVED}', 'WriteEffect'), ('{RECEIVED}', 'GetIntoTrouble'),
           ('{CHANGED}', 'WriteFactEffect');
    INSERT INTO fault_effects (event_id, consumer, owed_at)
    VALUES ('{RECEIVED}', 'KeepOrder', now()), ('{REGISTERED}', 'KeepOrder', now()),
           ('{CHANGED}', 'KeepOrder', now() + interval '1 s');
    INSERT INTO kratos_sync.kratos_identities (id, traits, synced_at, version)
    VALUES ('{PERSON}', '{{"number": 1}}', now(), 2);
    INSERT INTO kratos_sync.registrations_per_day (day, registrations) VALUES ('2026-01-01', 1);
"""
TWO_WEBHOOKS = f"""
    INSERT INTO kratos_sync.events
           (id, name, subject, occurred_at, payload, source, dedupe_key)
    SELECT '{RECEIVED_NEXT}', name, subject, occurred_at,
           jsonb_set(payload::jsonb, '{{identity,traits,call}}', '"{NEXT_CALL.trigger}"')::json,
           source, 'webhook:{NEXT_CALL.trigger}:0'
    FROM kratos_sync.events WHERE id = '{RECEIVED}';
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT '{RECEIVED_NEXT}', consumer, 1, 'succeeded', now(), '0'
    FROM kratos_sync.attempts WHERE event_id = '{RECEIVED}';
    INSERT INTO fault_effects (event_id, consumer, owed_at)
    SELECT '{RECEIVED_NEXT}', consumer, owed_at + interval '1 s'
    FROM fault_effects WHERE event_id = '{RECEIVED}';
"""
PENDING = f"""
    INSERT INTO kratos_sync.deliveries (event_id, consumer, subject)
    VALUES ('{RECEIVED}', 'WriteEffect', '{PERSON}')
"""


def consumed_last(event: str) -> str:
    """Let an event that is consumed in order be so after all others."""
    return f"""
        WITH consumed AS (
            DELETE FROM fault_effects WHERE event_id = '{event}' AND consumer = 'KeepOrder'
            RETURNING event_id, consumer, owed_at)
        INSERT INTO fault_effects (event_id, consumer, owed_at) SELECT * FROM consumed
    """


class Planted(NamedTuple):
    """Something done to tables where all is well, and how the check must call it."""

    statement: str
    sort: Sort


PLANTED = {
    "an event gone": Planted(f"DELETE FROM kratos_sync.events WHERE id = '{RECEIVED}'", "lost"),
    "an event recorded again": Planted(
        "INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)"
        " SELECT gen_random_uuid(), name, subject, occurred_at, payload, source"
        f" FROM kratos_sync.events WHERE id = '{RECEIVED}'",
        "doubled",
    ),
    "a failure without a cause": Planted(
        "INSERT INTO kratos_sync.attempts"
        " (event_id, consumer, number, outcome, started_at, duration, error)"
        f" VALUES ('{RECEIVED}', 'WriteEffect', 1, 'failed', now(), '0', 'OperationalError: lost')",
        "failed",
    ),
    "an effect gone": Planted(
        "DELETE FROM fault_effects WHERE consumer = 'WriteEffect'",
        "lost",
    ),
    "a fact's effect gone": Planted(
        "DELETE FROM fault_effects WHERE consumer = 'WriteFactEffect'", "lost"
    ),
    "an effect doubled": Planted(
        f"INSERT INTO fault_effects (event_id, consumer) VALUES ('{RECEIVED}', 'GetIntoTrouble')",
        "doubled",
    ),
    "an effect of nothing": Planted(
        "INSERT INTO fault_effects VALUES (gen_random_uuid(), 'WriteEffect')",
        "doubled",
    ),
    "an effect in turn gone": Planted(
        f"DELETE FROM fault_effects WHERE consumer = 'KeepOrder' AND event_id = '{REGISTERED}'",
        "lost",
    ),
    "an effect in turn doubled": Planted(
        "INSERT INTO fault_effects (event_id, consumer, owed_at)"
        f" SELECT event_id, consumer, owed_at FROM fault_effects"
        f" WHERE consumer = 'KeepOrder' AND event_id = '{CHANGED}'",
        "doubled",
    ),
    "a fact consumed after a later one": Planted(consumed_last(REGISTERED), "disordered"),
    "a fact recorded before an earlier version's": Planted(
        f"UPDATE fault_effects SET owed_at = '2026-01-01' WHERE event_id = '{CHANGED}'",
        "disordered",
    ),
    "versions in the wrong order": Planted(
        f"UPDATE kratos_sync.events SET payload = '{{\"version\": 0}}' WHERE id = '{CHANGED}'",
        "disordered",
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
    "a delivery still pending": Planted(PENDING, "pending"),
    "a dead letter": Planted(
        f"{PENDING}; UPDATE kratos_sync.deliveries SET failed_at = now()", "pending"
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


def wrong_in(
    tables: psycopg.Connection,
    calls: Sequence[Call] = (CALL,),
    elsewhere: Elsewhere = ELSEWHERE_ONCE,
    faults: Spans = (),
) -> list[Wrong]:
    return what_is_wrong(tables, calls, elsewhere, faults)


def test_where_all_is_well_nothing_is_wrong(tables: psycopg.Connection) -> None:
    assert wrong_in(tables) == []


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(tables: psycopg.Connection, name: str) -> None:
    plant(tables, name)
    assert PLANTED[name].sort in {wrong.sort for wrong in wrong_in(tables)}


def test_what_is_still_pending_is_not_lost(tables: psycopg.Connection) -> None:
    plant(tables, "a delivery still pending", "an effect gone")
    tables.execute("DELETE FROM kratos_sync.attempts WHERE consumer = 'WriteEffect'")
    assert {wrong.sort for wrong in wrong_in(tables)} == {"pending"}


@pytest.mark.parametrize("status", [None, 422, 503])
def test_a_call_that_kratos_dropped_is_lost(tables: psycopg.Connection, status: int | None) -> None:
    dropped = Call("another", PERSON, number=2, sent_at=100.0, answered_at=193.0, status=status)
    [wrong] = wrong_in(tables, [CALL, dropped])
    assert (wrong.sort, wrong.at) == ("lost", 100.0)


def test_a_lost_call_is_laid_to_the_time_when_it_was_sent(tables: psycopg.Connection) -> None:
    lost = Call("another", PERSON, number=2, sent_at=200.0, answered_at=201.0, status=200)
    [wrong] = wrong_in(tables, [CALL, lost])
    assert (wrong.sort, wrong.at) == ("lost", 200.0)


def test_webhooks_are_in_order_if_those_sent_after_an_answer_are_consumed_after_it(
    tables: psycopg.Connection,
) -> None:
    tables.execute(TWO_WEBHOOKS.encode())
    assert wrong_in(tables, [CALL, NEXT_CALL]) == []


def test_a_webhook_that_is_consumed_after_one_sent_later_is_disordered(
    tables: psycopg.Connection,
) -> None:
    tables.execute(TWO_WEBHOOKS.encode())
    tables.execute(consumed_last(RECEIVED).encode())
    [wrong] = wrong_in(tables, [CALL, NEXT_CALL])
    assert wrong.sort == "disordered"
    assert RECEIVED in wrong.what


def test_webhooks_sent_at_the_same_time_may_come_in_any_order(tables: psycopg.Connection) -> None:
    tables.execute(TWO_WEBHOOKS.encode())
    tables.execute(consumed_last(RECEIVED).encode())
    assert wrong_in(tables, [CALL, replace(NEXT_CALL, sent_at=100.5)]) == []


def test_an_event_without_effect_elsewhere_is_lost(tables: psycopg.Connection) -> None:
    [wrong] = wrong_in(tables, elsewhere={})
    assert wrong.sort == "lost"
    assert "WriteElsewhere" in wrong.what


def test_an_effect_elsewhere_may_come_again_only_after_a_fault(tables: psycopg.Connection) -> None:
    twice: Elsewhere = {UUID(RECEIVED): [101.5, 107.0]}
    assert wrong_in(tables, elsewhere=twice, faults=[(102.0, 110.0)]) == []
    [wrong] = wrong_in(tables, elsewhere=twice, faults=[(90.0, 101.0), (108.0, 110.0)])
    assert (wrong.sort, wrong.at) == ("doubled", 107.0)


def test_effects_elsewhere_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "elsewhere"
    monkeypatch.setenv(ELSEWHERE, str(file))
    before = time.time()
    for event in (RECEIVED, RECEIVED_NEXT, RECEIVED):
        FileElsewhere().write(UUID(event))
    effects = effects_elsewhere(file)
    assert [len(effects[UUID(event)]) for event in (RECEIVED, RECEIVED_NEXT)] == [2, 1]
    assert all(before - 1 < at < time.time() + 1 for times in effects.values() for at in times)
