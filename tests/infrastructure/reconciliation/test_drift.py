"""What a reconciliation remembers of the webhooks that were missed, and what `status` reads."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Engine, text

from kratos_sync.application.drift import MOST_PAST, Drift
from kratos_sync.application.ports.kratos import Page
from kratos_sync.application.ports.reconciliation import Findings
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.identities.rows import STORE, to_arrays
from kratos_sync.infrastructure.postgres.engine import driver_of
from kratos_sync.infrastructure.reconciliation.runs import (
    PostgresReconciliations,
    drift,
)
from tests.infrastructure.ledger.rows import add_delivery
from tests.kratos.persons import THEN, person

ADA = UUID("0199e6a0-0000-7000-8000-00000000ada0")
GRACE = UUID("0199e6a0-0000-7000-8000-00000000beef")
SOMEBODY = UUID("0199e6a0-0000-7000-8000-00000000da1a")
LATER = THEN + timedelta(hours=1)


def written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def hold(engine: Engine, document: dict[str, Any]) -> None:
    row = KratosIdentity.seen(Identity.from_admin_api(document), at=THEN, cause=ADA)
    with engine.begin() as connection:
        cursor = psycopg.RawCursor(driver_of(connection))
        cursor.execute(STORE, to_arrays([row], [0]), binary=True)


def reconcile(engine: Engine, *documents: dict[str, Any]) -> Findings:
    """Compare with one page that lists these, to the end."""
    with PostgresReconciliations(engine).begin(dry_run=False) as run:
        run.compare_page(page(*documents), datetime.now(UTC), 10)
        run.end("completed")
        return run.findings


def page(*documents: dict[str, Any]) -> Page:
    listing = json.dumps(sorted(documents, key=lambda document: str(document["id"])))
    return Page(listing.replace('"unreadable"', "1e999").encode(), None)


def remembered(engine: Engine) -> Drift:
    with engine.connect() as connection:
        return drift(connection)


def test_what_is_missed_is_counted_and_remembered(engine: Engine) -> None:
    held = person(ADA)
    hold(engine, held)
    address = {**held["verifiable_addresses"][0], "verified": True, "status": "completed"}
    address["verified_at"] = written(LATER)
    found = reconcile(engine, {**held, "verifiable_addresses": [address]})
    assert (found.stale, found.missed_webhooks) == (1, {"verification": 1})
    (past,) = remembered(engine).past
    assert (past.findings, past.outcome) == (found, "completed")
    assert past.ended_at
    assert past.started_at <= past.seen_at <= past.ended_at


def test_a_registration_since_the_run_before_is_a_missed_webhook(engine: Engine) -> None:
    old = person(ADA)
    assert reconcile(engine, old).missed_webhooks == {"old": 1}
    hold(engine, old)
    registered = person(GRACE, created_at=written(datetime.now(UTC) + timedelta(minutes=1)))
    found = reconcile(engine, old, registered, person(SOMEBODY))
    assert found.missed_webhooks == {"registration": 1, "old": 1}


def test_a_pending_webhook_is_not_missed(engine: Engine) -> None:
    add_delivery(engine, "SyncKratosIdentity")
    assert reconcile(engine, person(SOMEBODY), person(ADA)).missed_webhooks == {
        "on_its_way": 1,
        "old": 1,
    }


def test_another_consumers_delivery_is_nothing_on_its_way(engine: Engine) -> None:
    add_delivery(engine, "Greet")
    assert reconcile(engine, person(SOMEBODY)).missed_webhooks == {"old": 1}


def test_an_interruption_keeps_the_missed_and_unreadable_counts(
    engine: Engine,
) -> None:
    first = page(person(ADA), person(GRACE, traits={"points": "unreadable"}))
    reconciliations = PostgresReconciliations(engine)
    with reconciliations.begin(dry_run=False) as run:
        run.compare_page(first._replace(next="more"), datetime.now(UTC), 10)
    with reconciliations.begin(dry_run=False) as run:
        assert run.resumed
        assert run.findings.unreadable == 1
        run.compare_page(page(person(UUID(int=GRACE.int + 1))), datetime.now(UTC), 10)
        assert run.findings.missed_webhooks == {"old": 2}
        assert run.findings.unreadable == 1


def test_a_reconciliation_is_running_while_its_lock_is_held(engine: Engine) -> None:
    reconciliations = PostgresReconciliations(engine)
    assert not remembered(engine).is_running
    with reconciliations.begin(dry_run=False):
        assert remembered(engine).is_running
        (past,) = remembered(engine).past
        assert (past.ended_at, past.outcome) == (None, None)
    assert not remembered(engine).is_running


def test_a_reconciliation_of_another_database_is_none_of_ours(
    engine: Engine, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(5720684119)")
        assert not remembered(engine).is_running


def test_the_newest_come_first_and_are_not_too_many(engine: Engine) -> None:
    add = text("INSERT INTO kratos_sync.reconciliations (held) SELECT generate_series(1, :number)")
    with engine.begin() as connection:
        connection.execute(add, {"number": MOST_PAST + 5})
    held = [past.findings.held for past in remembered(engine).past]
    assert held == list(range(MOST_PAST + 5, 5, -1))
