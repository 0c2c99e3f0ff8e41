"""Asking Kratos about some identities at the command line."""

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import Result
from sqlalchemy import Engine

from kratos_sync.api.cli import sync as command
from kratos_sync.application.consumers.delete_kratos_identity import DeleteKratosIdentity
from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.domain.events import KratosIdentityGone, KratosIdentityUpdated
from kratos_sync.infrastructure.ledger.notifications import CHANNEL
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.domain.people import LOYAL
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import many, person
from tests.kratos.reply import broken, says
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, hinted, updated
from tests.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("settings", "kratos")


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


def town_of(kratos: AdminStandIn) -> InMemoryDocuments:
    assert isinstance(kratos.people, InMemoryDocuments)
    return kratos.people


def sync(*ids: UUID | str, typed: str | None = None) -> Result:
    return kratos_sync("sync", *map(str, ids), typed=typed)


def outcomes(*ids: UUID | str) -> list[str]:
    answer: dict[str, Any] = json.loads(sync("--json", *ids).stdout)
    return [each["outcome"] for each in answer["identities"]]


def consume_everything(ledger: PostgresLedger) -> None:
    while ledger.deliveries:
        for name in {name for name, _ in ledger.deliveries}:
            ids = [event_id for consumer, event_id in ledger.deliveries if consumer == name]
            kind = ledger.subscriptions.consumers[name]
            deliver(Batch(kind, ids, ledger.unit_of_work(), ledger))


def test_the_answer_of_kratos_is_recorded_exactly(
    kratos: AdminStandIn, ledger: PostgresLedger
) -> None:
    ada = town_of(kratos).put(person(metadata_admin={"n": LOYAL}))

    result = sync(ada)

    assert (result.exit_code, result.stdout) == (0, f"{ada}  updated\n")
    (event,) = ledger.events.values()
    assert (event.name, event.subject, event.source) == (KratosIdentityUpdated.name, ada, "sync")
    assert str(LOYAL) in event.payload
    assert list(ledger.deliveries) == [(SyncKratosIdentity.name, event.id)]


def test_an_unchanged_identity_is_reported_as_the_same_and_recorded(
    kratos: AdminStandIn, ledger: PostgresLedger
) -> None:
    document = person()
    ada = town_of(kratos).put(document)
    assert outcomes(ada) == ["updated"]
    consume_everything(ledger)

    assert outcomes(ada) == ["same"]
    consume_everything(ledger)
    town_of(kratos).put({**document, "state": "inactive", "updated_at": "2026-03-01T00:00:00Z"})

    assert outcomes(ada) == ["updated"]
    assert len(ledger.events) > 3


def test_an_identity_deleted_in_kratos_is_deleted_here(
    kratos: AdminStandIn, ledger: PostgresLedger
) -> None:
    ada = town_of(kratos).put(person())
    sync(ada)
    consume_everything(ledger)
    town_of(kratos).remove(ada)

    assert outcomes(ada) == ["gone"]
    assert [name for name, _ in ledger.deliveries] == [DeleteKratosIdentity.name]
    consume_everything(ledger)
    before = len(ledger.events)

    assert outcomes(ada) == ["gone"]
    assert len(ledger.events) == before


def test_an_identity_known_by_an_event_only_is_deleted_too(ledger: PostgresLedger) -> None:
    event = updated(1, uuid4())
    ledger.publish(event, WEBHOOK)

    assert outcomes(event.subject) == ["gone"]
    assert [e.name for e in ledger.events.values()][-1] == KratosIdentityGone.name


def test_an_identity_unknown_to_both_records_nothing(ledger: PostgresLedger) -> None:
    nobody = uuid4()

    result = sync(nobody)

    assert (result.exit_code, result.stdout) == (0, f"{nobody}  unknown to Kratos and to us\n")
    assert not ledger.events


def test_an_erased_identity_stays_erased(kratos: AdminStandIn, ledger: PostgresLedger) -> None:
    ada = town_of(kratos).put(person())
    ledger.query(
        "INSERT INTO kratos_sync.kratos_identities (id, synced_at, version, forgotten_at)"
        " VALUES (:who, now(), 1, now())",
        who=ada,
    )

    assert outcomes(ada) == ["forgotten"]
    assert not ledger.events


def test_many_identities_take_few_requests(kratos: AdminStandIn, ledger: PostgresLedger) -> None:
    ids = [town_of(kratos).put(document) for document in many(120)]

    assert outcomes(*ids) == 120 * ["updated"]
    assert len(kratos.seen) == 3
    assert len(ledger.events) == 120


def test_ids_are_read_from_stdin_each_once(kratos: AdminStandIn) -> None:
    ada = town_of(kratos).put(person())

    result = sync("-", typed=f"{ada}\n{str(ada).upper()} {ada}\n")

    assert (result.exit_code, result.stdout) == (0, f"{ada}  updated\n")


def test_earlier_hints_are_answered(kratos: AdminStandIn, ledger: PostgresLedger) -> None:
    ada = town_of(kratos).put(person())
    ledger.publish(hinted(1, ada), WEBHOOK)
    assert outcomes(ada) == ["updated"]

    deliver(Batch(FetchKratosIdentity, [hinted(1).id], ledger.unit_of_work(), ledger))

    assert ledger.kratos.requests == 0
    assert [name for name, _ in ledger.deliveries] == [SyncKratosIdentity.name]


def test_the_relay_is_woken(kratos: AdminStandIn, database_url: str) -> None:
    ada = town_of(kratos).put(person())
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        sync(ada)
        notified = list(listener.notifies(timeout=DEADLINE_SECONDS, stop_after=1))

    assert [notice.channel for notice in notified] == [CHANNEL]


def test_an_unavailable_kratos_is_reported_in_one_line(
    kratos: AdminStandIn, ledger: PostgresLedger
) -> None:
    kratos.always = broken(503, retry_after="60")

    result = sync("--json", uuid4(), uuid4())

    assert result.exit_code == 1
    assert "it answered 503. 2 identities not asked for." in result.stderr
    assert len(json.loads(result.stdout)["not_asked"]) == 2
    assert not ledger.events


def test_one_unreadable_identity_does_not_hold_up_the_others(
    kratos: AdminStandIn, ledger: PostgresLedger
) -> None:
    ada, grace = (town_of(kratos).put(document) for document in many(2))
    kratos.next(says(b'[{"id": 1}]'), None, says(b'{"id": 1}'))

    result = sync(ada, grace)

    assert result.exit_code == 1
    assert f"{ada}  updated\n{grace}  refused: " in result.stdout
    assert len(ledger.events) == 1


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        (("ada",), "'ada' is no UUID"),
        ((str(UUID(int=0)),), "all zeros"),
        (("-",), "0 ids"),
        (tuple(str(uuid4()) for _ in range(501)), "501 ids"),
        ((), "Missing argument"),
    ],
    ids=["no UUID", "nobody", "an empty list", "too many", "nothing"],
)
def test_wrong_use_has_its_own_exit_code(ids: tuple[str, ...], why: str) -> None:
    result = sync(*ids, typed="")

    assert result.exit_code == 2
    assert why in result.stderr


def test_without_a_url_the_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KRATOS_ADMIN_URL")

    result = sync(uuid4())

    assert result.exit_code == 2
    assert "KRATOS_ADMIN_URL is not set" in result.stderr


def test_waiting_has_an_end(
    kratos: AdminStandIn, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "WAIT_SECONDS", 0.1)
    ada = town_of(kratos).put(person())

    result = sync(ada, "--wait")

    assert result.exit_code == 1
    assert "1 delivery still pending" in result.stderr


def test_waiting_reports_dead_letters(
    kratos: AdminStandIn, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = town_of(kratos).put(person())

    def give_up(_: float) -> None:
        ledger.query("UPDATE kratos_sync.deliveries SET failed_at = now()")

    monkeypatch.setattr(command.time, "sleep", give_up)
    result = sync("--json", ada, "--wait")

    assert result.exit_code == 1
    assert "1 delivery failed for good" in result.stderr
    assert json.loads(result.stdout)["consumed"] is False
