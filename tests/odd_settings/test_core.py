"""The service's core under odd settings: nothing of it depends on what it finds."""

import inspect
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.identity import Identity
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.notifications import WakeUpListener
from kratos_sync.infrastructure.postgres.connections import connection_arguments, open_connection
from tests.api.cli.invoking import kratos_sync
from tests.domain.people import cause
from tests.infrastructure.ledger.test_dead_letters import fail
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.odd_settings.conftest import OddDatabase
from tests.suites import test_ledger
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import updated
from tests.suites.reconciling import World, world_on_postgres

SYNC: Final = SyncKratosIdentity.name
LEDGERS: Final = [
    test
    for name, test in vars(test_ledger).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["ledger"]
]
TRAITS: Final = {
    "name": "Zoë \\' Čapek 張",
    "words": ["NULL", "null", "", "\\x41", "C:\\new", "'; --"],
    "number": 0.1 + 0.2,
    "since": "1815-12-10T09:08:07.654321+05:45",
}


@pytest.mark.parametrize("test", LEDGERS, ids=lambda test: test.__name__)
def test_a_ledger_is_what_every_ledger_is(
    test: Callable[[PostgresLedger], None], ledger: PostgresLedger
) -> None:
    test(ledger)


@pytest.fixture
def world(engine: Engine) -> World:
    return world_on_postgres(engine)


@pytest.fixture
def kratos(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    odd_database: OddDatabase,
    broker_url: str,
) -> Iterator[AdminStandIn]:
    """Kratos' Admin API; commands find it, and the odd database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", odd_database.url)
    monkeypatch.setenv("DATABASE_DIRECT_URL", odd_database.direct_url)
    monkeypatch.setenv("BROKER_URL", broker_url)
    with AdminStandIn(world.town) as kratos:
        monkeypatch.setenv("KRATOS_ADMIN_URL", kratos.url)
        yield kratos


def ran(*arguments: str) -> str:
    result = kratos_sync(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_person_is_recorded_claimed_settled_replayed_reconciled_and_shown(
    engine: Engine, ledger: PostgresLedger, world: World, kratos: AdminStandIn
) -> None:
    document = {**person(), "traits": TRAITS}
    world.town.put(document)
    world.receive(document, consumed=False)
    claims = PostgresClaims(engine, timedelta(seconds=30))
    (backlog,) = claims.survey([SYNC]).values()
    claim = claims.claim(SYNC, 10)
    world.consume()

    said = Identity.from_kratos(document)
    assert backlog.is_due
    assert len(claim.event_ids) == 1
    assert [row.traits for row in world.rows().values()] == [TRAITS]
    assert said.id in world.rows()

    assert "nothing to do" in ran("migrate")
    assert ran("history", str(said.id))
    assert json.loads(ran("status", "--json"))["identities"]["alive"] == 1
    assert ran("reconcile")
    assert ran("replay", "--consumer", SYNC, "--since", "1h", "--yes")
    assert ledger.deliveries
    world.consume()
    assert [row.traits for row in world.rows().values()] == [TRAITS]
    assert ran("purge", "--dry-run")
    assert ran("purge")


def test_a_dead_letter_is_shown_and_retried(
    engine: Engine, ledger: PostgresLedger, kratos: AdminStandIn
) -> None:
    fail(engine, SYNC)

    assert json.loads(ran("failed", "list", "--json"))["dead_letters"] == 1
    assert ran("failed", "retry", "--yes", "--all")
    assert not any(delivery.is_dead for delivery in ledger.deliveries.values())


def test_what_was_recorded_was_committed_to_the_disk(
    ledger: PostgresLedger, odd_database: OddDatabase
) -> None:
    arguments = connection_arguments(SecretStr(odd_database.admin_url))
    with open_connection(arguments, autocommit=True) as administrator:
        administrator.execute("""
            CREATE FUNCTION odd.look() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF current_setting('synchronous_commit') <> 'on' THEN
                    RAISE EXCEPTION 'not durable' USING ERRCODE = '23514';
                END IF;
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER look AFTER INSERT ON kratos_sync.events
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION odd.look();
        """)
        try:
            assert ledger.publish(updated(1), Provenance("webhook"))
        finally:
            administrator.execute("DROP FUNCTION odd.look CASCADE")
    assert list(ledger.events) == [cause(1)]


def test_a_session_of_the_engine_has_none_of_them(engine: Engine) -> None:
    asked = (
        *("synchronous_commit", "timezone", "datestyle", "intervalstyle", "client_encoding"),
        "exit_on_error",
    )
    with engine.begin() as connection:
        found = [connection.execute(text(f"SHOW {name}")).scalar() for name in asked]
        assert connection.execute(text("SELECT 1.5::float8 / 0.1")).scalar() == 1.5 / 0.1
    assert found == ["on", "UTC", "ISO, MDY", "postgres", "UTF8", "off"]


def test_no_session_ends_for_having_taken_its_time(engine: Engine) -> None:
    limits = ["idle_session_timeout", "transaction_timeout"]
    statement = text("SELECT setting FROM pg_settings WHERE name = ANY(:limits)")
    with engine.begin() as connection:
        found = set(connection.execute(statement, {"limits": limits}).scalars())
    assert found == {"0"}


def test_a_listener_listens_past_a_pooler(odd_database: OddDatabase) -> None:
    from threading import Event

    listener = WakeUpListener(SecretStr(odd_database.direct_url))
    listener.wait(0.01, Event())
    assert listener._connection is not None
    listener.close()
